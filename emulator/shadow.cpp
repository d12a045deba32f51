// The checks: what is known of every byte, and the hooks through which a checked build reports each access.
//
// A checked build is compiled with the compiler's thread-sanitizer instrumentation and linked to the hooks at the end of this
// file instead of to the sanitizer's own runtime. An access is to the thread's stack, to shared memory, to a region that the
// launch was given, to constants of the object, or an error.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <link.h>
#include <sys/mman.h>

namespace emulated {

static const char* verb(Access kind) { return kind == Access::Read ? "read" : kind == Access::Write ? "write" : "atomic"; }

// "file.cu:12: " for accesses that name their place; the host finds the line of the others.
struct Prefix {
    char text[96];
    explicit Prefix(Where at) {
        text[0] = 0;
        if (at.file) snprintf(text, sizeof text, "%s:%d: ", at.file, at.line);
    }
};

// Whether what thread `other` did in an epoch is visible to this thread: a barrier lies between, or it is the same thread, or
// one of the same warp with a __syncwarp between.
static bool ordered(const Block& b, uint32_t then, uint32_t warp_then, unsigned other) {
    unsigned me = b.running, warp = me / WARP;
    return then != epoch() || other == me || (other / WARP == warp && warp_then != b.warp_epoch[warp]);
}

static void check_race(const Block& b, const Cell& c, Access kind, const void* p, const char* memory, Where at) {
    Prefix where(at);
    bool atomics = kind == Access::Atomic && c.writes == WrittenByAtomic;
    if (c.writes && c.write_epoch >= b.launch_epoch && !atomics) {
        if (c.write_epoch < b.block_epoch) fail("%srace in %s memory: %s of %p, which another block writes in this launch", where.text, memory, verb(kind), p);
        if (!ordered(b, c.write_epoch, c.write_warp_epoch, c.writer))
            fail("%srace in %s memory: %s of %p after a write by thread %u with no barrier between", where.text, memory, verb(kind), p, c.writer);
    }
    if (kind == Access::Read || !c.reads) return;
    bool foreign = (c.read_epoch >= b.launch_epoch && c.read_epoch < b.block_epoch) || c.foreign_read_epoch >= b.launch_epoch;
    if (foreign) fail("%srace in %s memory: %s of %p, which another block reads in this launch", where.text, memory, verb(kind), p);
    if (c.read_epoch != epoch()) return;
    unsigned warp = b.running / WARP;
    bool safe = c.reads == ReadByOne    ? ordered(b, c.read_epoch, c.read_warp_epoch, c.reader)
                : c.reads == ReadByWarp ? c.reader / WARP == warp && c.read_warp_epoch != b.warp_epoch[warp]
                                        : false;
    if (!safe) fail("%srace in %s memory: %s of %p after a read by thread %u with no barrier between", where.text, memory, verb(kind), p, c.reader);
}

static void note(const Block& b, Cell& c, Access kind) {
    unsigned me = b.running, warp = me / WARP;
    if (kind != Access::Read) {
        c.writes = kind == Access::Atomic ? WrittenByAtomic : Written;
        c.write_epoch = epoch(), c.write_warp_epoch = b.warp_epoch[warp], c.writer = me;
        c.reads = NotRead, c.foreign_read_epoch = 0;
        return;
    }
    if (!c.reads || c.read_epoch != epoch()) {
        if (c.reads && c.read_epoch < b.block_epoch && c.read_epoch >= b.launch_epoch) c.foreign_read_epoch = c.read_epoch;
        c.reads = ReadByOne;
    } else if (c.reader != me) {
        c.reads = c.reader / WARP == warp && c.reads != ReadByMany ? ReadByWarp : ReadByMany;
    }
    c.read_epoch = epoch(), c.read_warp_epoch = b.warp_epoch[warp], c.reader = me;
}

static void shared_access(Block& b, char* p, size_t n, Access kind, Where at) {
    Prefix where(at);
    char* dynamic = reinterpret_cast<char*>(smem_raw);
    bool is_dynamic = p >= dynamic && p < dynamic + MOST_SHARED;
    if (is_dynamic && p + n > dynamic + b.launch->dynamic_shared)
        fail("%s%s at byte %td of %u bytes of dynamic shared memory", where.text, verb(kind), p - dynamic, b.launch->dynamic_shared);
    for (size_t i = 0; i < n; i++) {
        Cell& c = b.shared_cells[p + i - b.shared_start];
        if (std::max(c.write_epoch, c.read_epoch) < b.launch_epoch && !is_dynamic) b.static_shared++;
        if (std::max(c.write_epoch, c.read_epoch) < b.block_epoch) c = {};
        if (kind != Access::Write && c.writes == OnItsWay) fail("%s%s of shared memory that a cp.async fills, before its wait", where.text, verb(kind));
        if (kind != Access::Write && !c.writes) fail("%s%s of shared memory that nothing wrote", where.text, verb(kind));
        check_race(b, c, kind, p, "shared", at);
        note(b, c, kind);
    }
    if (b.static_shared + b.launch->dynamic_shared > b.launch->shared_limit)
        fail("%suses %u bytes of shared memory, the chip has %u for a block", where.text, b.static_shared + b.launch->dynamic_shared, b.launch->shared_limit);
}

static Tracked* find(Block& b, const char* p, size_t n, Access kind) {
    auto fits = [&](const Tracked& r) { return (kind == Access::Read || r.writable) && r.holds(p, n); };
    if (b.latest && fits(*b.latest)) return b.latest;
    for (Tracked& r : b.regions)
        if (fits(r)) return b.latest = &r;
    return nullptr;
}

// Says which operand a stray access misses, and by how much.
[[noreturn]] static void stray(Block& b, const char* p, size_t n, Access kind, Where at) {
    Prefix where(at);
    const Tracked* nearest = nullptr;
    size_t least = SIZE_MAX;
    for (const Tracked& r : b.regions) {
        if (r.holds(p, n)) fail("%swrite to %s, which is there to be read", where.text, r.name);
        size_t distance = p < r.start ? r.start - p : p + n > r.end() ? p + n - r.end() : 0;
        if (distance < least) least = distance, nearest = &r;
    }
    if (!nearest) fail("%sglobal %s of %zu bytes at %p, and the launch was given no memory", where.text, verb(kind), n, p);
    if (p < nearest->start) fail("%sglobal %s out of bounds: %zu bytes, %zu before the start of %s", where.text, verb(kind), n, least, nearest->name);
    if (least > 0) fail("%sglobal %s out of bounds: %zu bytes, ending %zu past the end of %s", where.text, verb(kind), n, least, nearest->name);
    size_t row = size_t(p - nearest->start) / nearest->pitch, column = size_t(p - nearest->start) % nearest->pitch;
    fail("%sglobal %s out of bounds: %zu bytes at byte %zu of row %zu of %s, whose rows have %zu bytes", where.text, verb(kind), n, column, row,
         nearest->name, size_t(nearest->row_bytes));
}

static void global_access(Block& b, char* p, size_t n, Access kind, Where at) {
    Tracked* r = find(b, p, n, kind);
    if (!r) stray(b, p, n, kind, at);
    size_t first = p - r->allocation->start;
    uint8_t* written = r->allocation->written + first;
    if (kind != Access::Write) {
        for (size_t i = 0; i < n; i++)
            if (!written[i]) fail("%sread of %s where nothing was written, byte %td", Prefix(at).text, r->name, p + i - r->start);
    }
    if (!r->writable && !r->shared_with_writes) return;
    for (size_t i = 0; i < n; i++) {
        Cell& c = r->allocation->cells[first + i];
        check_race(b, c, kind, p, "global", at);
        note(b, c, kind);
    }
    if (kind != Access::Read) memset(written, 1, n);
}

// Where this object is loaded: its constants may be read.
static char *object_start, *object_end;

static int look(dl_phdr_info* info, size_t, void* data) {
    auto& b = *static_cast<Block*>(data);
    auto here = reinterpret_cast<uintptr_t>(&object_start);
    uintptr_t low = UINTPTR_MAX, high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        low = std::min<uintptr_t>(low, info->dlpi_addr + segment.p_vaddr);
        high = std::max<uintptr_t>(high, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
    if (here < low || here >= high) return 0;
    object_start = reinterpret_cast<char*>(low), object_end = reinterpret_cast<char*>(high);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
        b.shared_start = static_cast<char*>(info->dlpi_tls_data);
        b.shared_bytes = info->dlpi_phdr[i].p_memsz;
    }
    return 1;
}

void shared_span(Block& b) {
    smem_raw[0] = 0; // the segment exists from its first use on
    dl_iterate_phdr(look, &b);
}

void access(const void* address, size_t n, Access kind, Where at) {
    Block* b = current;
    if (!b || !b->context->checked || b->failed) return;
    char* p = static_cast<char*>(const_cast<void*>(address));
    if (p >= b->stacks && p < b->stacks + STACK * MOST_THREADS) {
        if (size_t(p - b->stacks) / STACK != b->running) fail("%s%s of another thread's local memory", Prefix(at).text, verb(kind));
        return;
    }
    bool power = n == 2 || n == 4 || n == 8 || n == 16;
    if (power && uintptr_t(p) % n) fail("%s%s of %zu bytes at %p, which is not aligned to them", Prefix(at).text, verb(kind), n, p);
    if (p >= b->shared_start && p < b->shared_start + b->shared_bytes) return shared_access(*b, p, n, kind, at);
    if (kind == Access::Read && p >= object_start && p < object_end) return;
    global_access(*b, p, n, kind, at);
}

// The running thread reads for its warp. Between a write and this read there must be a proxy fence: of the thread that wrote, or of this
// one after it learnt of the write.
void product_access(const void* address, size_t n, Where at) {
    Block* b = current;
    if (!b || !b->context->checked || b->failed) return;
    const char* p = static_cast<const char*>(address);
    if (p < b->shared_start || p >= b->shared_start + b->shared_bytes) fail("%s:%d: an operand of a product is not in shared memory", at.file, at.line);
    access(address, n, Access::Read, at);
    for (size_t i = 0; i < n; i++) {
        const Cell& c = b->shared_cells[p + i - b->shared_start];
        if (b->fibers[c.writer].fenced < c.write_epoch && self().fenced <= c.write_epoch)
            fail("%s:%d: a product reads shared memory that thread %u wrote, with no proxy fence between", at.file, at.line, c.writer);
    }
}

void copy_async(void* to, const void* from, int size, int bytes, Where at) {
    if ((uintptr_t(to) | (bytes ? uintptr_t(from) : 0)) % size) fail("%s:%d: an address of cp.async is not aligned to %d bytes", at.file, at.line, size);
    if (bytes < 0 || bytes > size) fail("%s:%d: cp.async of %d bytes of %d", at.file, at.line, bytes, size);
    Block& b = *current;
    access(to, size, Access::Write, at);
    if (bytes) access(from, bytes, Access::Read, at);
    char* p = static_cast<char*>(to);
    if (b.context->checked) {
        if (p < b.shared_start || p >= b.shared_start + b.shared_bytes) fail("%s:%d: cp.async does not end in shared memory", at.file, at.line);
        for (int i = 0; i < size; i++) b.shared_cells[p + i - b.shared_start].writes = OnItsWay;
    }
    Copy c{p, static_cast<const char*>(from), size, bytes, self().group, at};
    if (b.launch->landing == Landing::AtOnce) land(c);
    else memset(to, 0xff, size);
    self().copies.push_back(c);
}

void copy_wait(int pending) {
    Fiber& me = self();
    size_t kept = 0;
    for (const Copy& c : me.copies) {
        if (c.group >= me.group - pending) {
            me.copies[kept++] = c;
            continue;
        }
        if (current->launch->landing == Landing::AtWait) land(c);
        access(c.to, c.size, Access::Write, c.where);
    }
    me.copies.resize(kept);
}
} // namespace emulated

// --- the hooks that instrumented code calls -----------------------------------------------------------------------------------
using emulated::Access;
static inline __attribute__((always_inline)) void hook(void* p, size_t n, Access kind, void* caller) {
    if (!emulated::current) return;
    emulated::current->program_counter = caller;
    emulated::access(p, n, kind, {nullptr, 0});
    emulated::current->program_counter = nullptr;
}
#define HOOKS(n)                                                                                                                \
    void __tsan_read##n(void* p) { hook(p, n, Access::Read, __builtin_return_address(0)); }                                     \
    void __tsan_write##n(void* p) { hook(p, n, Access::Write, __builtin_return_address(0)); }                                   \
    void __tsan_unaligned_read##n(void* p) { hook(p, n, Access::Read, __builtin_return_address(0)); }                           \
    void __tsan_unaligned_write##n(void* p) { hook(p, n, Access::Write, __builtin_return_address(0)); }
#define UNDEFINED(name, what)                                                                                                   \
    void __ubsan_handle_##name(emulated::SourceLine* s, void*, void*) {                                                         \
        if (emulated::current) emulated::fail("%s:%u: " what, s->file, s->line);                                                \
    }
namespace emulated {
struct SourceLine {
    const char* file;
    uint32_t line, column;
};
} // namespace emulated
extern "C" {
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, size_t n) { hook(p, n, Access::Read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { hook(p, n, Access::Write, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
UNDEFINED(type_mismatch_v1, "an access by a pointer that is null or not aligned to its type")
UNDEFINED(out_of_bounds, "an index outside its array")
UNDEFINED(shift_out_of_bounds, "a shift by too much")
UNDEFINED(add_overflow, "an integer sum overflows")
UNDEFINED(sub_overflow, "an integer difference overflows")
UNDEFINED(mul_overflow, "an integer product overflows")
UNDEFINED(negate_overflow, "an integer negation overflows")
UNDEFINED(divrem_overflow, "an integer division by zero, or one that overflows")
}
