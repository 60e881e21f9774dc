/* SHA-256 (FIPS 180-4) of several streams at once, with the CPU's own instructions.
 *
 *     first, second = sha256(b"prefix"), sha256()
 *     update((first, second), (buffer, buffer))
 *     first.hexdigest()
 *
 * The narrow kernel works on up to NARROW_LANES streams at once. On x86-64 there is a wide one,
 * for which it does not matter how many of its WIDE_LANES are busy: update() uses it for as many
 * as the caller says that it is worth it. If the CPU lacks it, WIDE_LANES is 0 and the narrow one
 * does all the work.
 *
 * Uses the stable ABI of Python 3.11. SUPPORTED is true if the CPU has the instructions of the
 * narrow kernel; if it is false, sha256() raises RuntimeError. No function keeps a buffer after
 * it returns. The GIL is released while there is much to do; using a state that another thread
 * works on meanwhile raises RuntimeError.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__x86_64__)
#include "_sha256_x86.h"
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include "_sha256_arm.h"
#else
#error "there is no kernel for this machine"
#endif

/* For fewer bytes than this, releasing the GIL costs more time than it saves. */
#define MANY_BYTES 2048

#define MAX_LANES (WIDE_LANES > NARROW_LANES ? WIDE_LANES : NARROW_LANES)

typedef struct {
    State *state;
    const uint8_t *data;
    size_t size;
    bool is_filled; /* the block in state->rest is complete, and comes before data */
} Lane;

/* --- From bytes to blocks -------------------------------------------------------------- */

/* Add data to the incomplete block of the lane's state. */
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
    lane->is_filled = filled + taken == BLOCK;
}

static size_t
count_blocks(const Lane *lane)
{
    return lane->is_filled ? 1 : lane->size / BLOCK;
}

static void
skip_blocks(Lane *lane, size_t blocks)
{
    if (lane->is_filled) {
        lane->is_filled = false;
        return;
    }
    lane->data += blocks * BLOCK;
    lane->size -= blocks * BLOCK;
}

/* Which kernel works on how many lanes. */
typedef struct {
    size_t wide_from; /* while at least so many are busy, the wide one; 0: never */
    size_t narrow_lanes; /* the most that the narrow one works on at once, 1 to NARROW_LANES */
} Setup;

/* Return how many of the busy lanes the narrow kernel works on at once: in groups as even as
 * can be, because five lanes take less time as 3 + 2 than as 4 + 1. */
static size_t
choose_narrow_width(size_t busy, size_t most)
{
    size_t groups = (busy + most - 1) / most;
    return (busy + groups - 1) / groups;
}

/* Add the data of each lane to its state; the states are distinct. */
static void
update(Lane *lanes, size_t count, Setup setup)
{
    for (size_t i = 0; i < count; i++)
        fill_block(&lanes[i]);
    for (;;) {
        /* The first lanes that have blocks left, until one of them runs out of blocks. */
        size_t busy = 0;
        for (size_t i = 0; i < count; i++)
            busy += count_blocks(&lanes[i]) != 0;
        if (busy == 0)
            break;
        bool is_wide = setup.wide_from && busy >= setup.wide_from;
        size_t wide_width = busy < MAX_LANES ? busy : MAX_LANES;
        size_t width = is_wide ? wide_width : choose_narrow_width(busy, setup.narrow_lanes);
        Lane *chosen[MAX_LANES];
        State *states[MAX_LANES];
        const uint8_t *data[MAX_LANES];
        size_t blocks = SIZE_MAX;
        for (size_t i = 0, found = 0; found < width; i++) {
            size_t available = count_blocks(&lanes[i]);
            if (available == 0)
                continue;
            chosen[found] = &lanes[i];
            states[found] = lanes[i].state;
            data[found++] = lanes[i].is_filled ? lanes[i].state->rest : lanes[i].data;
            blocks = available < blocks ? available : blocks;
        }
        (is_wide ? compress_wide : compress_narrow)((int)width, states, data, blocks);
        for (size_t i = 0; i < width; i++)
            skip_blocks(chosen[i], blocks);
    }
    for (size_t i = 0; i < count; i++) {
        if (lanes[i].size) /* data may be NULL, which memcpy forbids */
            memcpy(lanes[i].state->rest, lanes[i].data, lanes[i].size);
    }
}

static void
finish(const State *state, uint8_t digest[DIGEST])
{
    uint8_t blocks[2 * BLOCK];
    State last = *state, *const states = &last;
    const uint8_t *const data = blocks;
    compress_narrow(1, &states, &data, pad(state, blocks));
    write_digest(&last, digest);
}

/* --- The type -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    State state;
    bool is_busy; /* a thread works on it without the GIL; read and written with the GIL */
} Sha256;

typedef struct {
    PyTypeObject *type;
    /* Asked once: in a virtual machine, CPUID takes longer than a small file. */
    bool is_supported, is_wide_supported;
} Module;

static bool
is_free(const Sha256 *hasher)
{
    if (hasher->is_busy)
        PyErr_SetString(PyExc_RuntimeError, "the state is in use, by another thread or twice here");
    return !hasher->is_busy;
}

static void
update_lanes(Lane *lanes, size_t count, Setup setup)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += lanes[i].size;
    if (total < MANY_BYTES) {
        update(lanes, count, setup);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    update(lanes, count, setup);
    Py_END_ALLOW_THREADS
}

static bool
update_one(Sha256 *hasher, PyObject *data)
{
    Py_buffer view;
    if (!is_free(hasher) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return false;
    Lane lane = {&hasher->state, view.buf, (size_t)view.len, false};
    hasher->is_busy = true;
    update_lanes(&lane, 1, (Setup){0, NARROW_LANES});
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
        PyErr_SetString(PyExc_RuntimeError, "this CPU has no instructions for SHA-256");
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
        lanes[i] = (Lane){&((Sha256 *)hasher)->state, views[i].buf, (size_t)views[i].len, false};
    }
    return count;
}

/* Read `wide_from` and `narrow_lanes`, if they are there. */
static bool
read_setup(const Module *own, PyObject *const *arguments, Py_ssize_t count, Setup *setup)
{
    Py_ssize_t number[2] = {0, 0};
    for (Py_ssize_t i = 0; i < count; i++) {
        number[i] = PyLong_AsSsize_t(arguments[i]);
        if (number[i] == -1 && PyErr_Occurred())
            return false;
        if (number[i] < 0) {
            PyErr_SetString(PyExc_ValueError, "wide_from and narrow_lanes must be at least 0");
            return false;
        }
    }
    bool has_limit = number[1] > 0 && number[1] < NARROW_LANES;
    setup->wide_from = own->is_wide_supported ? (size_t)number[0] : 0;
    setup->narrow_lanes = has_limit ? (size_t)number[1] : NARROW_LANES;
    return true;
}

static PyObject *
lanes_update(PyObject *module, PyObject *const *arguments, Py_ssize_t argument_count)
{
    const Module *own = PyModule_GetState(module);
    PyObject *result = NULL;
    Lane *lanes = NULL;
    Py_buffer *views = NULL;
    Setup setup;
    if (argument_count < 2 || argument_count > 4) {
        PyErr_SetString(PyExc_TypeError, "update() takes from 2 to 4 arguments");
        return NULL;
    }
    if (!read_setup(own, arguments + 2, argument_count - 2, &setup))
        return NULL;
    /* Copies as tuples: another thread could change a list meanwhile. */
    PyObject *states = PySequence_Tuple(arguments[0]);
    PyObject *buffers = states == NULL ? NULL : PySequence_Tuple(arguments[1]);
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
    Py_ssize_t prepared = prepare(own, states, buffers, count, lanes, views);
    if (prepared == count) {
        update_lanes(lanes, (size_t)count, setup);
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
    {"update", (PyCFunction)(void (*)(void))lanes_update, METH_FASTCALL,
     "Add the first of `buffers` to the first of `states`, all distinct, and so on.\n\n"
     "While at least `wide_from` of them are busy, the wide kernel works; 0: never.\n"
     "Else the narrow one does, on up to `narrow_lanes` at once; 0: as many as it can."},
    {NULL, NULL, 0, NULL}};

static int
lanes_exec(PyObject *module)
{
    Module *own = PyModule_GetState(module);
    own->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sha256_spec, NULL);
    if (own->type == NULL)
        return -1;
    own->is_supported = cpu_has_narrow_kernel();
    own->is_wide_supported = own->is_supported && cpu_has_wide_kernel();
    if (PyModule_AddObjectRef(module, "SUPPORTED", own->is_supported ? Py_True : Py_False) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "NARROW_LANES", NARROW_LANES) < 0 ||
        PyModule_AddStringConstant(module, "NARROW_KERNEL", NARROW_KERNEL) < 0 ||
        PyModule_AddIntConstant(module, "WIDE_LANES", own->is_wide_supported ? WIDE_LANES : 0) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "WIDE_KERNEL", WIDE_KERNEL);
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
    .m_doc = "SHA-256 of several streams at once, with the CPU's own instructions.",
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
