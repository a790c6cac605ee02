// The same of added.cc in libstdc++'s old ABI, for the adapter of torch 2.6, whose wheels have it.
#define _GLIBCXX_USE_CXX11_ABI 0

#include <sstream>

namespace std {

// GCC 9. Whether it is called or inlined is up to the optimiser.
template basic_ostringstream<char>::basic_ostringstream();

}  // namespace std
