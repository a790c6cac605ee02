// What glibc 2.34 moved from libdl into libc, under the version that both have.
extern "C" {
void dladdr() {}
void dlclose() {}
void dlerror() {}
void dlinfo() {}
void dlopen() {}
void dlsym() {}
}
