/* Preloaded, it lets each read and write of a regular file end short, as the kernel may. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static size_t cut(int fd, size_t wanted) {
    static unsigned seed;
    if (!seed) {
        const char *given = getenv("SHORT_TRANSFERS_SEED");
        seed = given ? (unsigned)atoi(given) : 1;
    }
    struct stat found;
    if (wanted < 2 || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))
        return wanted;
    size_t most = rand_r(&seed) % 4 ? 70000 : 3;
    return 1 + (size_t)rand_r(&seed) % (wanted < most ? wanted : most);
}

/* The vector's first bytes only: as many as cut() leaves of its first buffer. */
#define VECTOR(fd, vector, count) \
    struct iovec first = {vector[0].iov_base, 0}; \
    if (count > 0) first.iov_len = cut(fd, vector[0].iov_len)

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *buffer, size_t size) {
    REAL(read);
    return real(fd, buffer, cut(fd, size));
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset) {
    REAL(pread64);
    return real(fd, buffer, cut(fd, size), offset);
}

ssize_t readv(int fd, const struct iovec *vector, int count) {
    REAL(readv);
    VECTOR(fd, vector, count);
    return real(fd, &first, 1);
}

ssize_t preadv64v2(int fd, const struct iovec *vector, int count, off64_t offset, int flags) {
    REAL(preadv64v2);
    VECTOR(fd, vector, count);
    return real(fd, &first, 1, offset, flags);
}

ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    return preadv64v2(fd, vector, count, offset, flags);
}

ssize_t write(int fd, const void *buffer, size_t size) {
    REAL(write);
    return real(fd, buffer, cut(fd, size));
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t offset) {
    REAL(pwrite64);
    return real(fd, buffer, cut(fd, size), offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *vector, int count, off64_t offset, int flags) {
    REAL(pwritev64v2);
    VECTOR(fd, vector, count);
    return real(fd, &first, 1, offset, flags);
}

ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    return pwritev64v2(fd, vector, count, offset, flags);
}
