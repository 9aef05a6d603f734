/* Makes the n-th call that writes to a file fail, for tests/storage/test_failing_disk.py (LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

static int left, error_code, fired;

/* Fail the n-th call from now on with this errno. */
void fault_arm(int n, int code) { left = n; error_code = code; fired = 0; }

/* Fail no more; gives whether a call was failed. */
int fault_disarm(void) { left = 0; return fired; }

static int fails(void) {
    if (left == 0 || --left > 0) return 0;
    fired = 1;
    errno = error_code;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define STANDARD(fd) ((fd) <= 2)

ssize_t write(int fd, const void *data, size_t size) {
    return !STANDARD(fd) && fails() ? -1 : REAL(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails() ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails() ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { return fails() ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails() ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails() ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails() ? -1 : REAL(ftruncate64)(fd, size); }
int rename(const char *from, const char *to);
int rename(const char *from, const char *to) { return fails() ? -1 : REAL(rename)(from, to); }
