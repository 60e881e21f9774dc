/* A directory seen through a network: each request to it waits before it is served.

    latency_fs DIRECTORY MOUNT_POINT WAIT_MICROSECONDS

The kernel keeps nothing (no names, no attributes, no listings), so each path component, stat,
open, read of a directory or of a file and each change asks anew. As many requests wait at
once as there are, up to MAX_THREADS. Closing waits only for what was written, as on NFS.
Says "mounted" on stdout, then serves until it gets SIGTERM or its parent ends. For trials:
all is done with the rights of the user who mounts, and nobody else may look. Needs libfuse 3.12
or newer: cc latency_fs.c -lfuse3 -lpthread */

#define _GNU_SOURCE
#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 1024
#define BUCKETS 65536
#define MAX_FILES (1 << 20)
#define PROC_PATH_BYTES 32

/* What the kernel knows of: held open, so that its inode number is not given to another. */
struct node {
    struct node *next;
    dev_t dev;
    ino_t ino;
    uint64_t lookups;
    int fd;
};

static struct node root;
static struct node *buckets[BUCKETS];
static pthread_mutex_t nodes_lock = PTHREAD_MUTEX_INITIALIZER;
static struct timespec latency;

static void wait_for_network(void)
{
    clock_nanosleep(CLOCK_MONOTONIC, 0, &latency, NULL);
}

static struct node *node_of(fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)ino;
}

static int fd_of(fuse_ino_t ino)
{
    return node_of(ino)->fd;
}

/* A path that opens what an O_PATH descriptor stands for. */
static char *proc_path(char path[PROC_PATH_BYTES], fuse_ino_t ino)
{
    snprintf(path, PROC_PATH_BYTES, "/proc/self/fd/%d", fd_of(ino));
    return path;
}

static void reply_result(fuse_req_t request, int result)
{
    fuse_reply_err(request, result == -1 ? errno : 0);
}

static struct node **bucket_of(dev_t dev, ino_t ino)
{
    return &buckets[(ino ^ dev) % BUCKETS];
}

/* Return the node of an open descriptor, which is its own from now on. */
static struct node *remember(int fd, const struct stat *found)
{
    struct node **bucket = bucket_of(found->st_dev, found->st_ino);
    pthread_mutex_lock(&nodes_lock);
    struct node *node = *bucket;
    while (node && (node->ino != found->st_ino || node->dev != found->st_dev))
        node = node->next;
    if (node) {
        close(fd);
    } else if ((node = calloc(1, sizeof *node))) {
        node->dev = found->st_dev;
        node->ino = found->st_ino;
        node->fd = fd;
        node->next = *bucket;
        *bucket = node;
    }
    if (node)
        node->lookups++;
    pthread_mutex_unlock(&nodes_lock);
    return node;
}

static void forget(fuse_ino_t ino, uint64_t lookups)
{
    struct node *node = node_of(ino);
    if (node == &root)
        return;
    pthread_mutex_lock(&nodes_lock);
    node->lookups -= lookups;
    if (!node->lookups) {
        struct node **place = bucket_of(node->dev, node->ino);
        while (*place != node)
            place = &(*place)->next;
        *place = node->next;
        close(node->fd);
        free(node);
    }
    pthread_mutex_unlock(&nodes_lock);
}

/* Fill in what the kernel is told of a name; return 0 or an error number. */
static int find_entry(fuse_ino_t parent, const char *name, struct fuse_entry_param *entry)
{
    memset(entry, 0, sizeof *entry); /* all timeouts: nothing is kept */
    int fd = openat(fd_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1)
        return errno;
    if (fstat(fd, &entry->attr) == -1) {
        int error = errno;
        close(fd);
        return error;
    }
    struct node *node = remember(fd, &entry->attr);
    if (!node) {
        close(fd);
        return ENOMEM;
    }
    entry->ino = (uintptr_t)node;
    return 0;
}

static void reply_entry(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry;
    int error = find_entry(parent, name, &entry);
    if (error)
        fuse_reply_err(request, error);
    else
        fuse_reply_entry(request, &entry);
}

static void on_init(void *data, struct fuse_conn_info *connection)
{
    (void)data;
    connection->max_background = MAX_THREADS;
    connection->congestion_threshold = MAX_THREADS;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    wait_for_network();
    reply_entry(request, parent, name);
}

static void on_forget(fuse_req_t request, fuse_ino_t ino, uint64_t lookups)
{
    forget(ino, lookups);
    fuse_reply_none(request);
}

static void on_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(request);
}

static void reply_attributes(fuse_req_t request, fuse_ino_t ino)
{
    struct stat found;
    if (fstat(fd_of(ino), &found) == -1)
        fuse_reply_err(request, errno);
    else
        fuse_reply_attr(request, &found, 0);
}

static void on_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)file;
    wait_for_network();
    reply_attributes(request, ino);
}

static int set_times(fuse_ino_t ino, const struct stat *wanted, int what)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (what & FUSE_SET_ATTR_ATIME)
        times[0] = wanted->st_atim;
    if (what & FUSE_SET_ATTR_ATIME_NOW)
        times[0].tv_nsec = UTIME_NOW;
    if (what & FUSE_SET_ATTR_MTIME)
        times[1] = wanted->st_mtim;
    if (what & FUSE_SET_ATTR_MTIME_NOW)
        times[1].tv_nsec = UTIME_NOW;
    return utimensat(fd_of(ino), "", times, AT_EMPTY_PATH);
}

static void on_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *wanted, int what,
                       struct fuse_file_info *file)
{
    char path[PROC_PATH_BYTES];
    int result = 0;
    wait_for_network();
    if (what & FUSE_SET_ATTR_MODE)
        result = chmod(proc_path(path, ino), wanted->st_mode);
    if (!result && what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        result = fchownat(fd_of(ino), "", what & FUSE_SET_ATTR_UID ? wanted->st_uid : (uid_t)-1,
                          what & FUSE_SET_ATTR_GID ? wanted->st_gid : (gid_t)-1, AT_EMPTY_PATH);
    if (!result && what & FUSE_SET_ATTR_SIZE)
        result = file ? ftruncate((int)file->fh, wanted->st_size)
                      : truncate(proc_path(path, ino), wanted->st_size);
    if (!result && what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME |
                           FUSE_SET_ATTR_MTIME_NOW))
        result = set_times(ino, wanted, what);
    if (result == -1)
        fuse_reply_err(request, errno);
    else
        reply_attributes(request, ino);
}

static void on_readlink(fuse_req_t request, fuse_ino_t ino)
{
    char target[PATH_MAX + 1];
    wait_for_network();
    ssize_t length = readlinkat(fd_of(ino), "", target, PATH_MAX);
    if (length == -1) {
        fuse_reply_err(request, errno);
        return;
    }
    target[length] = '\0';
    fuse_reply_readlink(request, target);
}

/* What has made a name: the error, or what it is now. */
static void reply_made(fuse_req_t request, fuse_ino_t parent, const char *name, int result)
{
    if (result == -1)
        fuse_reply_err(request, errno);
    else
        reply_entry(request, parent, name);
}

static void on_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                     dev_t device)
{
    wait_for_network();
    reply_made(request, parent, name, mknodat(fd_of(parent), name, mode, device));
}

static void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    wait_for_network();
    reply_made(request, parent, name, mkdirat(fd_of(parent), name, mode));
}

static void on_symlink(fuse_req_t request, const char *target, fuse_ino_t parent,
                       const char *name)
{
    wait_for_network();
    reply_made(request, parent, name, symlinkat(target, fd_of(parent), name));
}

static void on_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    char path[PROC_PATH_BYTES];
    wait_for_network();
    int result =
        linkat(AT_FDCWD, proc_path(path, ino), fd_of(parent), name, AT_SYMLINK_FOLLOW);
    reply_made(request, parent, name, result);
}

static void on_unlink(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    wait_for_network();
    reply_result(request, unlinkat(fd_of(parent), name, 0));
}

static void on_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    wait_for_network();
    reply_result(request, unlinkat(fd_of(parent), name, AT_REMOVEDIR));
}

static void on_rename(fuse_req_t request, fuse_ino_t parent, const char *name,
                      fuse_ino_t new_parent, const char *new_name, unsigned int flags)
{
    wait_for_network();
    reply_result(request,
                 renameat2(fd_of(parent), name, fd_of(new_parent), new_name, flags));
}

/* What a file is opened with here: its path is a link, and buffers are not aligned. */
static int flags_of(const struct fuse_file_info *file)
{
    return (file->flags | O_CLOEXEC) & ~(O_NOFOLLOW | O_DIRECT);
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file)
{
    struct fuse_entry_param entry;
    wait_for_network();
    int fd = openat(fd_of(parent), name, flags_of(file) | O_CREAT, mode);
    if (fd == -1) {
        fuse_reply_err(request, errno);
        return;
    }
    int error = find_entry(parent, name, &entry);
    if (error) {
        close(fd);
        fuse_reply_err(request, error);
        return;
    }
    file->fh = fd;
    fuse_reply_create(request, &entry, file);
}

static void on_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    char path[PROC_PATH_BYTES];
    wait_for_network();
    int fd = open(proc_path(path, ino), flags_of(file));
    if (fd == -1) {
        fuse_reply_err(request, errno);
        return;
    }
    file->fh = fd;
    fuse_reply_open(request, file);
}

static void on_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)ino;
    wait_for_network();
    char *buffer = malloc(size);
    ssize_t length = buffer ? pread((int)file->fh, buffer, size, offset) : -1;
    if (length == -1)
        fuse_reply_err(request, errno);
    else
        fuse_reply_buf(request, buffer, length);
    free(buffer);
}

static void on_write(fuse_req_t request, fuse_ino_t ino, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file)
{
    (void)ino;
    wait_for_network();
    ssize_t length = pwrite((int)file->fh, data, size, offset);
    if (length == -1)
        fuse_reply_err(request, errno);
    else
        fuse_reply_write(request, length);
}

static void on_flush(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino;
    if ((file->flags & O_ACCMODE) != O_RDONLY)
        wait_for_network();
    reply_result(request, close(dup((int)file->fh)));
}

static void on_fsync(fuse_req_t request, fuse_ino_t ino, int is_data_only,
                     struct fuse_file_info *file)
{
    (void)ino;
    wait_for_network();
    int fd = (int)file->fh;
    reply_result(request, is_data_only ? fdatasync(fd) : fsync(fd));
}

static void on_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino;
    reply_result(request, close((int)file->fh));
}

static DIR *listing_of(struct fuse_file_info *file)
{
    return (DIR *)(uintptr_t)file->fh;
}

static void on_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    wait_for_network();
    int fd = openat(fd_of(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd == -1 ? NULL : fdopendir(fd);
    if (!listing) {
        int error = errno;
        if (fd != -1)
            close(fd);
        fuse_reply_err(request, error);
        return;
    }
    file->fh = (uintptr_t)listing;
    fuse_reply_open(request, file);
}

static void on_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *file)
{
    (void)ino;
    DIR *listing = listing_of(file);
    char *buffer = malloc(size);
    size_t used = 0;
    wait_for_network();
    if (!buffer) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    seekdir(listing, offset);
    for (;;) {
        errno = 0;
        const struct dirent *found = readdir(listing);
        if (!found)
            break;
        struct stat entry = {.st_ino = found->d_ino, .st_mode = (mode_t)DTTOIF(found->d_type)};
        size_t length = fuse_add_direntry(request, buffer + used, size - used, found->d_name,
                                          &entry, found->d_off);
        if (length > size - used)
            break;
        used += length;
    }
    if (errno && !used)
        fuse_reply_err(request, errno);
    else
        fuse_reply_buf(request, buffer, used);
    free(buffer);
}

static void on_fsyncdir(fuse_req_t request, fuse_ino_t ino, int is_data_only,
                        struct fuse_file_info *file)
{
    (void)ino;
    wait_for_network();
    int fd = dirfd(listing_of(file));
    reply_result(request, is_data_only ? fdatasync(fd) : fsync(fd));
}

static void on_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino;
    reply_result(request, closedir(listing_of(file)));
}

static void on_statfs(fuse_req_t request, fuse_ino_t ino)
{
    struct statvfs found;
    wait_for_network();
    if (fstatvfs(fd_of(ino), &found) == -1)
        fuse_reply_err(request, errno);
    else
        fuse_reply_statfs(request, &found);
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .forget_multi = on_forget_multi,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .readlink = on_readlink,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .symlink = on_symlink,
    .link = on_link,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .create = on_create,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .flush = on_flush,
    .fsync = on_fsync,
    .release = on_release,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .fsyncdir = on_fsyncdir,
    .releasedir = on_releasedir,
    .statfs = on_statfs,
};

static void raise_file_limit(void)
{
    struct rlimit limit = {MAX_FILES, MAX_FILES};
    if (setrlimit(RLIMIT_NOFILE, &limit) == -1 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int serve(struct fuse_session *session)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    /* fewer would let requests wait for a thread instead of the network */
    fuse_loop_cfg_set_max_threads(config, MAX_THREADS);
    fuse_loop_cfg_set_idle_threads(config, MAX_THREADS);
    puts("mounted");
    fflush(stdout);
    int result = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return result < 0;
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "usage: latency_fs DIRECTORY MOUNT_POINT WAIT_MICROSECONDS\n");
        return 2;
    }
    long microseconds = strtol(words[3], NULL, 10);
    latency = (struct timespec){microseconds / 1000000, microseconds % 1000000 * 1000};
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    umask(0); /* the kernel has applied the caller's */
    raise_file_limit();
    root.fd = open(words[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root.fd == -1) {
        perror(words[1]);
        return 1;
    }
    char *options[] = {words[0], "-o", "fsname=latency_fs", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, options);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session))
        return 1;
    if (fuse_session_mount(session, words[2]))
        return 1;
    int result = serve(session);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return result;
}
