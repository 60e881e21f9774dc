/* Directories and the status of the files in them, many in one call, without the GIL.
 *
 *     records, calls, waits, nanoseconds, directories, files =
 *         list_directories(at, paths, what, stop)
 *
 * system/listing.py describes what it returns, and has the same in Python. Uses the stable ABI of
 * Python 3.11, and nothing but Linux.
 *
 * A directory costs openat, getdents64 until nothing is left, and close; a file one fstatat. No
 * name is trusted: a symlink is followed only if it is the last part of one of `paths`, and only
 * if `at` is no descriptor.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* As in system/listing.py. */
enum { LEVEL, PRODUCT, VERSION };
enum { IS_READABLE = 1, IS_SPARSE = 2, HAS_FAILED = 4 };
enum { IS_ODD = 1, IS_YOUNG = 2 };
#define SPARSE_BYTES (64u << 20)
#define MIN_DENSITY 64u
#define TICK_NS 2000000000

#define DIRENTS_BYTES (64 << 10)
#define MIN_BUFFER_BYTES 4096
#define SECOND_NS 1000000000
/* How long a signal may wait, and how many calls there are between two looks at the clock. */
#define SIGNAL_NS 50000000
#define CLOCK_CALLS 32
/* After this time, what is left of the paths is left to another call. */
#define LONG_NS 20000000
#define HEADER_BYTES 24
#define IDENTITY_BYTES 16

typedef struct {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
} Dirent;

typedef struct {
    char *data;
    size_t used, size;
} Buffer;

typedef struct {
    size_t offset; /* in the names, which may move while they grow */
    const char *name;
    uint8_t type;
} Entry;

/* A directory's entries; used again for the next one. */
typedef struct {
    Buffer names;
    Entry *entries;
    size_t count, size;
} Directory;

/* Where the records of one of the paths end. */
typedef struct {
    size_t headers, names, identities, settings;
    unsigned flags;
} Mark;

typedef struct {
    Buffer headers, names, identities, settings;
    unsigned flags; /* of the path at hand */
    Directory top, below;
    char *dirents;
    const volatile char *stop;
    PyThreadState *thread;
    int64_t next_check_ns;
    unsigned long long next_look; /* at the clock, as a number of calls */
    unsigned long long calls, directories, files;
} Walk;

/* Why a walk ends early. An exception is set with HAS_RAISED only. */
typedef enum { GOES_ON, IS_STOPPED, HAS_RAISED, NO_MEMORY, IS_SHORT } Outcome;

static int64_t
now_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * SECOND_NS + time.tv_nsec;
}

/* Of a time, modulo 2^64: years that Linux can keep, but a file's change cannot have. */
static uint64_t
nanoseconds_of(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * SECOND_NS + (uint64_t)time->tv_nsec;
}

/* How often this thread has waited for something else than a CPU. */
static long
count_waits(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

static bool
reserve(Buffer *buffer, size_t bytes)
{
    if (buffer->size - buffer->used >= bytes)
        return true;
    size_t size = buffer->size ? buffer->size : MIN_BUFFER_BYTES;
    while (size - buffer->used < bytes) {
        if (size > SIZE_MAX / 2)
            return false;
        size *= 2;
    }
    char *data = realloc(buffer->data, size);
    if (data == NULL)
        return false;
    buffer->data = data;
    buffer->size = size;
    return true;
}

static bool
append(Buffer *buffer, const void *data, size_t bytes)
{
    if (!reserve(buffer, bytes))
        return false;
    memcpy(buffer->data + buffer->used, data, bytes);
    buffer->used += bytes;
    return true;
}

static void
store(uint8_t *place, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        place[i] = (uint8_t)(value >> (8 * i));
}

static bool
append_record(Walk *walk, char kind, unsigned flags, int64_t first, int64_t second,
              uint32_t nanoseconds, uint64_t device, uint64_t inode, const char *name)
{
    uint8_t header[HEADER_BYTES] = {(uint8_t)kind, (uint8_t)flags};
    uint8_t identity[IDENTITY_BYTES];
    store(header + 2, (uint64_t)first);
    store(header + 10, (uint64_t)second);
    for (int i = 0; i < 4; i++)
        header[18 + i] = (uint8_t)(nanoseconds >> (8 * i));
    store(identity, device);
    store(identity + 8, inode);
    return append(&walk->headers, header, sizeof header) &&
           append(&walk->identities, identity, sizeof identity) &&
           append(&walk->names, name, strlen(name) + 1);
}

/* Let a signal be handled, and see whether this walk is to end. */
static Outcome
check(Walk *walk)
{
    PyEval_RestoreThread(walk->thread);
    int result = PyErr_CheckSignals();
    walk->thread = PyEval_SaveThread();
    walk->next_check_ns = now_ns(CLOCK_MONOTONIC) + SIGNAL_NS;
    return result == 0 ? GOES_ON : HAS_RAISED;
}

static Outcome
check_sometimes(Walk *walk)
{
    if (*walk->stop)
        return IS_STOPPED;
    if (walk->calls < walk->next_look)
        return GOES_ON;
    walk->next_look = walk->calls + CLOCK_CALLS;
    return now_ns(CLOCK_MONOTONIC) < walk->next_check_ns ? GOES_ON : check(walk);
}

static bool
is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static bool
is_settings_name(const char *name)
{
    return strcmp(name, ".requirements") == 0 || strcmp(name, ".lxd_requirements") == 0 ||
           strcmp(name, ".product.toml") == 0;
}

/* Whether a file in a version is read for what it says. */
static bool
is_companion_name(const char *name)
{
    return strcmp(name, "image.yaml") == 0 || strcmp(name, "SHA256SUMS") == 0;
}

static int
compare_entries(const void *first, const void *second)
{
    return strcmp(((const Entry *)first)->name, ((const Entry *)second)->name);
}

static bool
add_entry(Directory *directory, const char *name, uint8_t type)
{
    if (directory->count == directory->size) {
        size_t size = directory->size ? directory->size * 2 : 64;
        Entry *entries = realloc(directory->entries, size * sizeof *entries);
        if (entries == NULL)
            return false;
        directory->entries = entries;
        directory->size = size;
    }
    directory->entries[directory->count++] = (Entry){directory->names.used, NULL, type};
    return append(&directory->names, name, strlen(name) + 1);
}

/* Read the names that count, and sort them; `error` becomes what went wrong, 0 if nothing. */
static Outcome
read_names(Walk *walk, int descriptor, bool with_settings, Directory *directory, int *error)
{
    directory->count = directory->names.used = 0;
    *error = 0;
    for (;;) {
        long bytes = syscall(SYS_getdents64, descriptor, walk->dirents, (unsigned)DIRENTS_BYTES);
        walk->calls++;
        if (bytes <= 0) {
            if (bytes < 0 && errno == EINTR) {
                Outcome outcome = check(walk);
                if (outcome != GOES_ON)
                    return outcome;
                continue;
            }
            *error = bytes < 0 ? errno : 0;
            break;
        }
        for (long place = 0; place < bytes;) {
            const Dirent *dirent = (const Dirent *)(walk->dirents + place);
            const char *name = dirent->name;
            place += dirent->length;
            bool counts = name[0] == '.' ? with_settings && is_settings_name(name) : name[0] != 0;
            if (counts && !add_entry(directory, name, dirent->type))
                return NO_MEMORY;
        }
        Outcome outcome = check_sometimes(walk);
        if (outcome != GOES_ON)
            return outcome;
    }
    for (size_t i = 0; i < directory->count; i++)
        directory->entries[i].name = directory->names.data + directory->entries[i].offset;
    if (directory->count > 1)
        qsort(directory->entries, directory->count, sizeof *directory->entries, compare_entries);
    return GOES_ON;
}

static char
kind_of_type(uint8_t type)
{
    switch (type) {
    case DT_REG: return 'f';
    case DT_DIR: return 'd';
    case DT_LNK: return 'l';
    case DT_FIFO: return 'p';
    case DT_SOCK: return 's';
    case DT_CHR: return 'c';
    case DT_BLK: return 'b';
    default: return '?';
    }
}

static Outcome
append_settings(Walk *walk, const struct stat *status)
{
    uint8_t record[24];
    store(record, nanoseconds_of(&status->st_ctim));
    store(record + 8, (uint64_t)status->st_ino);
    store(record + 16, (uint64_t)status->st_dev);
    return append(&walk->settings, record, sizeof record) ? GOES_ON : NO_MEMORY;
}

/* Append the record of an entry, and make its type what it is found to be. */
static Outcome
append_entry(Walk *walk, int descriptor, Entry *entry, bool with_files)
{
    char kind = kind_of_type(entry->type);
    bool is_settings = entry->name[0] == '.';
    if (kind != '?' && !(kind == 'f' && (with_files || is_settings))) {
        walk->flags |= kind == 'd' && !is_settings ? 0 : kind == 'f' ? 0 : IS_ODD;
        return append_record(walk, kind, 0, 0, 0, 0, 0, 0, entry->name) ? GOES_ON : NO_MEMORY;
    }
    struct stat status;
    bool is_read = is_settings || is_companion_name(entry->name);
    int64_t began_ns = is_read ? now_ns(CLOCK_REALTIME) : 0;
    for (;;) {
        int result = fstatat(descriptor, entry->name, &status, AT_SYMLINK_NOFOLLOW);
        walk->calls++;
        if (result == 0)
            break;
        int error = errno;
        if (error == EINTR) {
            Outcome outcome = check(walk);
            if (outcome != GOES_ON)
                return outcome;
            continue;
        }
        if (is_shortage(error)) {
            errno = error;
            return IS_SHORT;
        }
        walk->flags |= IS_ODD;
        bool is_done = append_record(walk, kind, HAS_FAILED, error, 0, 0, 0, 0, entry->name);
        return is_done ? GOES_ON : NO_MEMORY;
    }
    entry->type = IFTODT(status.st_mode);
    kind = kind_of_type(entry->type);
    walk->files += kind == 'f';
    if (kind != 'f' || !(with_files || is_settings)) {
        walk->flags |= (kind == 'd' && !is_settings) || kind == 'f' ? 0 : IS_ODD;
        return append_record(walk, kind, 0, 0, 0, 0, 0, 0, entry->name) ? GOES_ON : NO_MEMORY;
    }
    uint64_t size = (uint64_t)status.st_size;
    uint64_t few_blocks = (size + 512 * MIN_DENSITY - 1) / (512 * MIN_DENSITY);
    bool is_sparse = size >= SPARSE_BYTES && (uint64_t)status.st_blocks < few_blocks;
    unsigned flags = (status.st_mode & (S_IRGRP | S_IROTH) ? IS_READABLE : 0) |
                     (is_sparse ? IS_SPARSE : 0);
    const struct timespec *modified = &status.st_mtim;
    if (!append_record(walk, kind, flags, (int64_t)size, (int64_t)modified->tv_sec,
                       (uint32_t)modified->tv_nsec, (uint64_t)status.st_dev,
                       (uint64_t)status.st_ino, entry->name))
        return NO_MEMORY;
    if (!is_read)
        return GOES_ON;
    if ((int64_t)nanoseconds_of(&status.st_ctim) + TICK_NS > began_ns)
        walk->flags |= IS_YOUNG;
    return append_settings(walk, &status);
}

static bool
append_failed_directory(Walk *walk, int error)
{
    walk->flags |= IS_ODD;
    return append_record(walk, 'D', 0, error, 0, 0, 0, 0, "");
}

/* Append the records of an open directory. */
static Outcome
list_open(Walk *walk, int descriptor, bool is_version, Directory *directory)
{
    int error;
    Outcome outcome = read_names(walk, descriptor, !is_version, directory, &error);
    if (outcome != GOES_ON)
        return outcome;
    walk->directories++;
    if (is_shortage(error)) {
        errno = error;
        return IS_SHORT;
    }
    walk->flags |= error ? IS_ODD : 0;
    if (!append_record(walk, 'D', 0, error, (int64_t)directory->count, 0, 0, 0, ""))
        return NO_MEMORY;
    for (size_t i = 0; i < directory->count && outcome == GOES_ON; i++) {
        outcome = append_entry(walk, descriptor, &directory->entries[i], is_version);
        if (outcome == GOES_ON)
            outcome = check_sometimes(walk);
    }
    return outcome;
}

/* Open a directory; -1 with its `error` recorded, or with an outcome that ends the walk. */
static int
open_directory(Walk *walk, int at, const char *path, Outcome *outcome)
{
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | (at >= 0 ? O_NOFOLLOW : 0);
    for (;;) {
        int descriptor = openat(at, path, flags);
        walk->calls++;
        *outcome = GOES_ON;
        if (descriptor >= 0)
            return descriptor;
        if (errno == EINTR) {
            *outcome = check(walk);
            if (*outcome == GOES_ON)
                continue;
        } else if (is_shortage(errno)) {
            *outcome = IS_SHORT;
        } else if (!append_failed_directory(walk, errno)) {
            *outcome = NO_MEMORY;
        }
        return -1;
    }
}

static void
close_directory(Walk *walk, int descriptor)
{
    int error = errno; /* of an outcome */
    close(descriptor);
    walk->calls++;
    errno = error;
}

static Outcome
list_below(Walk *walk, int above, const char *name)
{
    Outcome outcome;
    int descriptor = open_directory(walk, above, name, &outcome);
    if (descriptor < 0)
        return outcome;
    outcome = list_open(walk, descriptor, true, &walk->below);
    close_directory(walk, descriptor);
    return outcome;
}

static Outcome
list_path(Walk *walk, int at, const char *path, int what)
{
    Outcome outcome = check_sometimes(walk);
    if (outcome != GOES_ON)
        return outcome;
    bool is_open = at >= 0 && path[0] == 0;
    int descriptor = is_open ? at : open_directory(walk, at, path, &outcome);
    if (descriptor < 0)
        return outcome;
    outcome = list_open(walk, descriptor, what == VERSION, &walk->top);
    if (what == PRODUCT)
        for (size_t i = 0; i < walk->top.count && outcome == GOES_ON; i++)
            if (walk->top.entries[i].type == DT_DIR && walk->top.entries[i].name[0] != '.')
                outcome = list_below(walk, descriptor, walk->top.entries[i].name);
    if (!is_open)
        close_directory(walk, descriptor);
    return outcome;
}

/* Return (headers, names, identities, settings, flags) of one path. */
static PyObject *
make_records(const Walk *walk, const Mark *from, const Mark *to)
{
    return Py_BuildValue("(y#y#y#y#I)", /* null bytes and lengths of 0 are fine */
                         walk->headers.data + from->headers,
                         (Py_ssize_t)(to->headers - from->headers),
                         walk->names.data + from->names, (Py_ssize_t)(to->names - from->names),
                         walk->identities.data + from->identities,
                         (Py_ssize_t)(to->identities - from->identities),
                         walk->settings.size ? walk->settings.data + from->settings : "",
                         (Py_ssize_t)(to->settings - from->settings), to->flags);
}

static PyObject *
make_result(const Walk *walk, const Mark *marks, size_t count, long waits, int64_t nanoseconds)
{
    PyObject *all = PyList_New((Py_ssize_t)count);
    if (all == NULL)
        return NULL;
    const Mark none = {0, 0, 0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        PyObject *records = make_records(walk, i ? &marks[i - 1] : &none, &marks[i]);
        if (records == NULL || PyList_SetItem(all, (Py_ssize_t)i, records) < 0) {
            Py_DECREF(all);
            return NULL;
        }
    }
    return Py_BuildValue("(NKlLKK)", all, walk->calls, waits, (long long)nanoseconds,
                         walk->directories, walk->files);
}

static void
set_exception(Outcome outcome, int error, const char *path)
{
    if (outcome == NO_MEMORY) {
        PyErr_NoMemory();
    } else if (outcome == IS_SHORT) {
        PyObject *name = PyUnicode_DecodeFSDefault(path);
        if (name == NULL)
            return;
        errno = error;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
        Py_DECREF(name);
    }
}

static PyObject *
list_directories(PyObject *module, PyObject *arguments)
{
    (void)module;
    int at, what;
    PyObject *given, *stop, *result = NULL;
    Py_buffer stop_view;
    if (!PyArg_ParseTuple(arguments, "iOiO:list_directories", &at, &given, &what, &stop))
        return NULL;
    if (what < LEVEL || what > VERSION) {
        PyErr_SetString(PyExc_ValueError, "there are no such directories");
        return NULL;
    }
    if (PyObject_GetBuffer(stop, &stop_view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *paths = NULL;
    const char **names = NULL;
    Mark *marks = NULL;
    Walk walk = {.flags = 0};
    if (stop_view.len < 1) {
        PyErr_SetString(PyExc_ValueError, "a byte must say whether to stop");
        goto end;
    }
    /* A copy as a tuple: another thread could change a list meanwhile. */
    paths = PySequence_Tuple(given);
    if (paths == NULL)
        goto end;
    size_t count = (size_t)PyTuple_Size(paths), done = 0;
    names = PyMem_Calloc(count, sizeof *names);
    marks = PyMem_Calloc(count, sizeof *marks);
    walk.dirents = PyMem_Malloc(DIRENTS_BYTES);
    if (names == NULL || marks == NULL || walk.dirents == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (size_t i = 0; i < count; i++) {
        char *name;
        /* Without a length: a null byte in it is an error. */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(paths, (Py_ssize_t)i), &name, NULL) < 0)
            goto end;
        names[i] = name;
    }
    walk.stop = stop_view.buf;
    walk.thread = PyEval_SaveThread();
    int64_t began_ns = now_ns(CLOCK_MONOTONIC);
    long waits = -count_waits();
    walk.next_check_ns = began_ns + SIGNAL_NS;
    Outcome outcome = GOES_ON;
    for (; done < count; done++) {
        if (done > 0 && now_ns(CLOCK_MONOTONIC) - began_ns > LONG_NS)
            break;
        walk.flags = 0;
        outcome = list_path(&walk, at < 0 ? AT_FDCWD : at, names[done], what);
        if (outcome != GOES_ON)
            break;
        marks[done] = (Mark){walk.headers.used, walk.names.used, walk.identities.used,
                             walk.settings.used, walk.flags};
    }
    int error = errno;
    int64_t nanoseconds = now_ns(CLOCK_MONOTONIC) - began_ns;
    waits += count_waits();
    PyEval_RestoreThread(walk.thread);
    if (outcome == GOES_ON || outcome == IS_STOPPED)
        result = make_result(&walk, marks, done, waits, nanoseconds);
    else
        set_exception(outcome, error, names[done]);
end:
    free(walk.below.entries);
    free(walk.below.names.data);
    free(walk.top.entries);
    free(walk.top.names.data);
    free(walk.settings.data);
    free(walk.identities.data);
    free(walk.names.data);
    free(walk.headers.data);
    PyMem_Free(walk.dirents);
    PyMem_Free(marks);
    PyMem_Free(names);
    Py_XDECREF(paths);
    PyBuffer_Release(&stop_view);
    return result;
}

static PyMethodDef listing_methods[] = {
    {"list_directories", list_directories, METH_VARARGS,
     "List `paths` below the descriptor `at`; see system/listing.py."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot listing_slots[] = {{0, NULL}};

static struct PyModuleDef listing_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastindex.system._listing",
    .m_doc = "Directories and the status of the files in them, many in one call.",
    .m_size = 0,
    .m_methods = listing_methods,
    .m_slots = listing_slots,
};

PyMODINIT_FUNC
PyInit__listing(void)
{
    return PyModuleDef_Init(&listing_module);
}
