/* Lets a Python program steer the callgrind that it runs under, through ctypes. */
#include <valgrind/callgrind.h>

void startCounting(void) { CALLGRIND_START_INSTRUMENTATION; }

void resetCounts(void) { CALLGRIND_ZERO_STATS; }

void dumpCounts(const char* label) { CALLGRIND_DUMP_STATS_AT(label); }
