// What glibc 2.34 moved from libpthread into libc, under the version that both have.
extern "C" {
void pthread_key_create() {}
void pthread_key_delete() {}
void pthread_getspecific() {}
void pthread_setspecific() {}
void pthread_once() {}
void pthread_create() {}
void pthread_join() {}
void pthread_detach() {}
void pthread_mutex_trylock() {}
void pthread_setname_np() {}
}
