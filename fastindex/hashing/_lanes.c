/* SHA-256 (FIPS 180-4) of several streams at once, with the SHA extensions of x86-64.
 *
 * One stream leaves the CPU's SHA unit half idle, because each round waits for the one before.
 * The rounds of independent streams fill the gaps: two streams take little longer than one.
 *
 *     first, second = sha256(b"prefix"), sha256()
 *     update((first, second), (buffer, buffer))
 *     first.hexdigest()
 *
 * Uses the stable ABI of Python 3.11. SUPPORTED is true if the CPU has the extensions; if it
 * is false, sha256() raises RuntimeError. No function keeps a buffer after it returns. The GIL
 * is released while there is much to do; using a state that another thread works on meanwhile
 * raises RuntimeError.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 64
#define DIGEST 32
#define MAX_LANES 4
/* For fewer bytes than this, releasing the GIL costs more time than it saves. */
#define MANY_BYTES 2048

typedef struct {
    uint32_t word[8];
    uint64_t length; /* bytes added so far */
    uint8_t rest[BLOCK]; /* those that do not fill a block yet */
} State;

typedef struct {
    State *state;
    const uint8_t *data;
    size_t size;
} Lane;

/* FIPS 180-4, 4.2.2 */
static const uint32_t CONSTANTS[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* FIPS 180-4, 5.3.3 */
static const uint32_t INITIAL_WORDS[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static bool
cpu_has_extensions(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return false;
    bool has_ssse3 = ecx & (1u << 9), has_sse41 = ecx & (1u << 19);
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    return has_ssse3 && has_sse41 && (ebx & (1u << 29));
}

/* --- The rounds ------------------------------------------------------------------------ */

#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))
/* The loops must be unrolled, so that the states of the lanes stay in registers. */
#define UNROLLED _Pragma("GCC unroll 16")

/* Compress `blocks` blocks of each of `count` lanes; `count` is known at compile time.
 *
 * The SHA instructions need the words as ABEF and CDGH. The lanes take turns of four rounds,
 * which is close enough for the CPU to overlap them.
 */
static inline __attribute__((always_inline)) WITH_SHA void
compress_lanes(const int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    const __m128i to_big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef[MAX_LANES], cdgh[MAX_LANES], message[MAX_LANES][4];
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        const __m128i *words = (const __m128i *)states[lane]->word;
        __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
        abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for (size_t offset = 0; offset < blocks * BLOCK; offset += BLOCK) {
        __m128i abef_before[MAX_LANES], cdgh_before[MAX_LANES];
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abef_before[lane] = abef[lane];
            cdgh_before[lane] = cdgh[lane];
        }
        UNROLLED
        for (int four = 0; four < 16; four++) { /* rounds 4 * four and the three after it */
            UNROLLED
            for (int lane = 0; lane < count; lane++) {
                __m128i *w = message[lane], next;
                if (four < 4) {
                    const uint8_t *from = data[lane] + offset + 16 * four;
                    next = _mm_loadu_si128((const __m128i *)from);
                    next = _mm_shuffle_epi8(next, to_big_endian);
                } else {
                    const __m128i last = w[(four + 3) & 3];
                    next = _mm_sha256msg1_epu32(w[four & 3], w[(four + 1) & 3]);
                    next = _mm_add_epi32(next, _mm_alignr_epi8(last, w[(four + 2) & 3], 4));
                    next = _mm_sha256msg2_epu32(next, last);
                }
                w[four & 3] = next;
                /* Four lanes need 28 registers, and there are 16. The message can be kept in
                 * memory; without this hint the compiler moves the states there too. */
                if (count == 4)
                    __asm__("" : "+m"(w[four & 3]));
                next = _mm_add_epi32(next, _mm_load_si128((const __m128i *)CONSTANTS + four));
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], next);
                next = _mm_shuffle_epi32(next, 0x0e);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], next);
            }
        }
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        __m128i *words = (__m128i *)states[lane]->word;
        __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1b);
        __m128i dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
        _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
        _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
    }
}

static WITH_SHA void
compress(int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    switch (count) {
    case 1: compress_lanes(1, states, data, blocks); break;
    case 2: compress_lanes(2, states, data, blocks); break;
    case 3: compress_lanes(3, states, data, blocks); break;
    case 4: compress_lanes(4, states, data, blocks); break;
    }
}

/* --- From bytes to blocks -------------------------------------------------------------- */

static void
compress_rest(State *state)
{
    const uint8_t *rest = state->rest;
    compress(1, &state, &rest, 1);
}

/* Add data to the incomplete block of the lane's state; compress it when it is full. */
static void
fill_block(Lane *lane)
{
    State *state = lane->state;
    size_t filled = state->length % BLOCK;
    state->length += lane->size;
    if (filled == 0 || lane->size == 0)
        return;
    size_t taken = BLOCK - filled < lane->size ? BLOCK - filled : lane->size;
    memcpy(state->rest + filled, lane->data, taken);
    lane->data += taken;
    lane->size -= taken;
    if (filled + taken == BLOCK)
        compress_rest(state);
}

/* Add the data of each lane to its state; the states are distinct. */
static void
update(Lane *lanes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fill_block(&lanes[i]);
    for (;;) {
        /* Up to four lanes that have blocks left, until one of them runs out of blocks. */
        Lane *chosen[MAX_LANES];
        State *states[MAX_LANES];
        const uint8_t *data[MAX_LANES];
        int width = 0;
        size_t blocks = SIZE_MAX;
        for (size_t i = 0; i < count && width < MAX_LANES; i++) {
            size_t available = lanes[i].size / BLOCK;
            if (available == 0)
                continue;
            chosen[width] = &lanes[i];
            states[width] = lanes[i].state;
            data[width++] = lanes[i].data;
            blocks = available < blocks ? available : blocks;
        }
        if (width == 0)
            break;
        compress(width, states, data, blocks);
        for (int i = 0; i < width; i++) {
            chosen[i]->data += blocks * BLOCK;
            chosen[i]->size -= blocks * BLOCK;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (lanes[i].size) /* data may be NULL, which memcpy forbids */
            memcpy(lanes[i].state->rest, lanes[i].data, lanes[i].size);
    }
}

static void
finish(const State *state, uint8_t digest[DIGEST])
{
    State last = *state;
    size_t filled = last.length % BLOCK;
    uint64_t bits = last.length * 8;
    last.rest[filled++] = 0x80;
    if (filled > BLOCK - 8) {
        memset(last.rest + filled, 0, BLOCK - filled);
        compress_rest(&last);
        filled = 0;
    }
    memset(last.rest + filled, 0, BLOCK - filled);
    for (int i = 0; i < 8; i++)
        last.rest[BLOCK - 1 - i] = (uint8_t)(bits >> (8 * i));
    compress_rest(&last);
    for (int i = 0; i < 8; i++) {
        uint32_t big_endian = __builtin_bswap32(last.word[i]);
        memcpy(digest + 4 * i, &big_endian, 4);
    }
}

/* --- The type -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    State state;
    bool is_busy; /* a thread works on it without the GIL; read and written with the GIL */
} Sha256;

typedef struct {
    PyTypeObject *type;
    bool is_supported; /* asked once: in a virtual machine, CPUID takes longer than a small file */
} Module;

static bool
is_free(const Sha256 *hasher)
{
    if (hasher->is_busy)
        PyErr_SetString(PyExc_RuntimeError, "the state is in use, by another thread or twice here");
    return !hasher->is_busy;
}

static void
update_lanes(Lane *lanes, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += lanes[i].size;
    if (total < MANY_BYTES) {
        update(lanes, count);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    update(lanes, count);
    Py_END_ALLOW_THREADS
}

static bool
update_one(Sha256 *hasher, PyObject *data)
{
    Py_buffer view;
    if (!is_free(hasher) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return false;
    Lane lane = {&hasher->state, view.buf, (size_t)view.len};
    hasher->is_busy = true;
    update_lanes(&lane, 1);
    hasher->is_busy = false;
    PyBuffer_Release(&view);
    return true;
}

static Sha256 *
new_hasher(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return (Sha256 *)allocate(type, 0);
}

static void
sha256_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *
sha256_update(PyObject *self, PyObject *data)
{
    if (!update_one((Sha256 *)self, data))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
sha256_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const Sha256 *hasher = (Sha256 *)self;
    if (!is_free(hasher))
        return NULL;
    Sha256 *copy = new_hasher(Py_TYPE(self));
    if (copy != NULL)
        copy->state = hasher->state;
    return (PyObject *)copy;
}

static PyObject *
sha256_digest(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const Sha256 *hasher = (Sha256 *)self;
    uint8_t digest[DIGEST];
    if (!is_free(hasher))
        return NULL;
    finish(&hasher->state, digest);
    return PyBytes_FromStringAndSize((const char *)digest, DIGEST);
}

static PyObject *
sha256_hexdigest(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    static const char digits[] = "0123456789abcdef";
    const Sha256 *hasher = (Sha256 *)self;
    uint8_t digest[DIGEST];
    char text[2 * DIGEST];
    if (!is_free(hasher))
        return NULL;
    finish(&hasher->state, digest);
    for (int i = 0; i < DIGEST; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    return PyUnicode_FromStringAndSize(text, 2 * DIGEST);
}

static PyMethodDef sha256_methods[] = {
    {"update", sha256_update, METH_O, "Add `data`, an object with a buffer, to what is hashed."},
    {"copy", sha256_copy, METH_NOARGS, "Return an independent state with the same data."},
    {"digest", sha256_digest, METH_NOARGS, "Return the digest of the data so far, 32 bytes."},
    {"hexdigest", sha256_hexdigest, METH_NOARGS, "Return that digest as 64 hex digits."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot sha256_slots[] = {
    {Py_tp_doc, "A SHA-256 state with hashlib's interface. Made by sha256()."},
    {Py_tp_dealloc, sha256_dealloc},
    {Py_tp_methods, sha256_methods},
    {0, NULL}};

static PyType_Spec sha256_spec = {
    .name = "fastindex.hashing._lanes.Sha256",
    .basicsize = sizeof(Sha256),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sha256_slots,
};

/* --- The module ------------------------------------------------------------------------ */

static PyObject *
lanes_sha256(PyObject *module, PyObject *arguments)
{
    const Module *own = PyModule_GetState(module);
    PyObject *data = NULL;
    if (!PyArg_ParseTuple(arguments, "|O:sha256", &data))
        return NULL;
    if (!own->is_supported) {
        PyErr_SetString(PyExc_RuntimeError, "this CPU has no SHA extensions");
        return NULL;
    }
    Sha256 *hasher = new_hasher(own->type);
    if (hasher == NULL)
        return NULL;
    memcpy(hasher->state.word, INITIAL_WORDS, sizeof INITIAL_WORDS);
    if (data != NULL && !update_one(hasher, data)) {
        Py_DECREF(hasher);
        return NULL;
    }
    return (PyObject *)hasher;
}

/* Fill `lanes` and `views` from the tuples and mark the states busy. Return how many were
 * marked; if not all were, an exception is set. */
static Py_ssize_t
prepare(const Module *own, PyObject *states, PyObject *buffers, Py_ssize_t count, Lane *lanes,
        Py_buffer *views)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *hasher = PyTuple_GetItem(states, i); /* borrowed, like the next */
        PyObject *buffer = PyTuple_GetItem(buffers, i);
        if (hasher == NULL || buffer == NULL)
            return i;
        if (Py_TYPE(hasher) != own->type) {
            PyErr_SetString(PyExc_TypeError, "states must come from sha256()");
            return i;
        }
        if (!is_free((Sha256 *)hasher) || PyObject_GetBuffer(buffer, &views[i], PyBUF_SIMPLE) < 0)
            return i;
        ((Sha256 *)hasher)->is_busy = true;
        lanes[i] = (Lane){&((Sha256 *)hasher)->state, views[i].buf, (size_t)views[i].len};
    }
    return count;
}

static PyObject *
lanes_update(PyObject *module, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"states", "buffers", "wide_from", NULL};
    int wide_from = 0;
    PyObject *states, *buffers, *result = NULL;
    Lane *lanes = NULL;
    Py_buffer *views = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO|i:update", names, &states, &buffers,
                                     &wide_from))
        return NULL;
    /* Copies as tuples: another thread could change a list meanwhile. */
    states = PySequence_Tuple(states);
    buffers = states == NULL ? NULL : PySequence_Tuple(buffers);
    if (buffers == NULL)
        goto end;
    Py_ssize_t count = PyTuple_Size(states);
    if (count != PyTuple_Size(buffers)) {
        PyErr_SetString(PyExc_ValueError, "there must be as many buffers as states");
        goto end;
    }
    lanes = PyMem_Calloc((size_t)count, sizeof *lanes);
    views = PyMem_Calloc((size_t)count, sizeof *views);
    if (lanes == NULL || views == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Py_ssize_t prepared = prepare(PyModule_GetState(module), states, buffers, count, lanes, views);
    if (prepared == count) {
        update_lanes(lanes, (size_t)count);
        result = Py_NewRef(Py_None);
    }
    for (Py_ssize_t i = 0; i < prepared; i++) {
        ((Sha256 *)PyTuple_GetItem(states, i))->is_busy = false;
        PyBuffer_Release(&views[i]);
    }
end:
    PyMem_Free(views);
    PyMem_Free(lanes);
    Py_XDECREF(buffers);
    Py_XDECREF(states);
    return result;
}

static PyMethodDef lanes_methods[] = {
    {"sha256", lanes_sha256, METH_VARARGS, "Return a new state with `data`."},
    {"update", (PyCFunction)(void (*)(void))lanes_update, METH_VARARGS | METH_KEYWORDS,
     "Add the first of `buffers` to the first of `states`, all distinct, and so on."},
    {NULL, NULL, 0, NULL}};

static int
lanes_exec(PyObject *module)
{
    Module *own = PyModule_GetState(module);
    own->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sha256_spec, NULL);
    if (own->type == NULL)
        return -1;
    own->is_supported = cpu_has_extensions();
    if (PyModule_AddObjectRef(module, "SUPPORTED", own->is_supported ? Py_True : Py_False) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "MAX_LANES", MAX_LANES);
}

static int
lanes_traverse(PyObject *module, visitproc visit, void *arg)
{
    const Module *own = PyModule_GetState(module);
    Py_VISIT(own->type);
    return 0;
}

static int
lanes_clear(PyObject *module)
{
    Module *own = PyModule_GetState(module);
    Py_CLEAR(own->type);
    return 0;
}

static void
lanes_free(void *module)
{
    lanes_clear(module);
}

static PyModuleDef_Slot lanes_slots[] = {{Py_mod_exec, lanes_exec}, {0, NULL}};

static struct PyModuleDef lanes_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastindex.hashing._lanes",
    .m_doc = "SHA-256 of several streams at once, with the CPU's SHA extensions.",
    .m_size = sizeof(Module),
    .m_methods = lanes_methods,
    .m_slots = lanes_slots,
    .m_traverse = lanes_traverse,
    .m_clear = lanes_clear,
    .m_free = lanes_free,
};

PyMODINIT_FUNC
PyInit__lanes(void)
{
    return PyModuleDef_Init(&lanes_module);
}
