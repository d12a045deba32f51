// The emulator's door: memory, launches, and what a host asks about them. src/device/cuda/emulated.rs calls it.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <sys/mman.h>

#define EXPORT extern "C" __attribute__((visibility("default")))
extern "C" {
__attribute__((aligned(1024), visibility("default"))) thread_local unsigned char smem_raw[emulated::MOST_SHARED];
}

namespace emulated {

constexpr size_t GUARD = 4096;
constexpr unsigned char CANARY = 0xa5;

static char* pages(size_t bytes) {
    void* p = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}

static size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

static Allocation* allocation_of(Context& context, const void* p) {
    for (Allocation& a : context.allocations)
        if (p >= a.start && p <= a.start + a.bytes) return &a;
    return nullptr;
}

// Blocks are reused: one for each thread of the host that launches.
static std::mutex spare_lock;
static std::vector<Block*> spare;

static Block* take_block() {
    std::lock_guard lock(spare_lock);
    if (!spare.empty()) {
        Block* b = spare.back();
        spare.pop_back();
        return b;
    }
    auto* b = new Block{};
    b->stacks = pages(STACK * MOST_THREADS);
    // The lowest page of each stack is a guard.
    for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(b->stacks + i * STACK, 4096, PROT_NONE);
    return b;
}

static void track_regions(Block& b) {
    b.regions.clear();
    b.latest = nullptr;
    for (uint64_t i = 0; i < b.launch->region_count; i++) {
        const Region& r = b.launch->regions[i];
        Allocation* a = allocation_of(*b.context, r.start);
        if (a && r.rows && r.row_bytes) b.regions.push_back({r, a, false});
    }
    for (Tracked& r : b.regions)
        for (const Tracked& w : b.regions) r.shared_with_writes |= w.writable && r.start < w.end() && w.start < r.end();
}

// NaN in all shared memory, so that what a kernel did not write shows in the fast build too.
static void poison(Block& b) {
    Block* keep = current;
    char* dynamic = reinterpret_cast<char*>(smem_raw);
    memset(b.shared_start, 0xff, dynamic - b.shared_start);
    char* rest = dynamic + MOST_SHARED;
    memset(rest, 0xff, b.shared_start + b.shared_bytes - rest);
    memset(dynamic, 0xff, b.launch->dynamic_shared);
    current = keep;
}

// All threads wait or have ended: if not all have ended, says who waits where.
static void report_deadlock(Block& b) {
    char* at = b.launch->error;
    char* end = at + b.launch->error_bytes;
    at += snprintf(at, end - at, "%s: block (%u, %u, %u): a barrier is not reached by all threads: %u of %u have ended", b.launch->name, b.index.x,
                   b.index.y, b.index.z, b.threads - b.alive, b.threads);
    const Fiber* shown = nullptr;
    for (unsigned i = 0, n = 0; i < b.threads && n < 4 && at < end; i++) {
        const Fiber& f = b.fibers[i];
        if (f.status == Status::Done || (shown && shown->status == f.status && shown->where.line == f.where.line)) continue;
        shown = &f, n++;
        const char* what = f.status == Status::AtBarrier ? "__syncthreads" : f.status == Status::AtPhase ? "a barrier in shared memory" : "a warp operation";
        at += snprintf(at, end - at, "; thread %u waits in %s at %s:%d", i, what, f.where.file, f.where.line);
    }
    b.failed = true;
}

static void run_block(Block& b, uint64_t number) {
    const uint32_t* n = b.launch->grid;
    b.index = {unsigned(number % n[0]), unsigned(number / n[0] % n[1]), unsigned(number / n[0] / n[1])};
    b.block_epoch = ++b.context->epoch;
    start_block(b);
    if (!b.failed && b.alive) report_deadlock(b);
}

// Blocks in the asked order; at random: a walk with a stride that has no factor in common with their number.
static void run_blocks(Block& b) {
    uint64_t count = uint64_t(b.launch->grid[0]) * b.launch->grid[1] * b.launch->grid[2];
    uint64_t stride = 1;
    if (b.launch->order == Order::Random)
        for (stride = b.launch->seed % count + 1; std::gcd(stride, count) != 1;) stride++;
    for (uint64_t i = 0; i < count && !b.failed; i++)
        run_block(b, b.launch->order == Order::Descending ? count - 1 - i : i * stride % count);
}

static void check_canaries(const Context& context, const Launch& launch) {
    for (const Allocation& a : context.allocations) {
        auto whole = [](const char* p, size_t n) { return std::all_of(p, p + n, [](char c) { return static_cast<unsigned char>(c) == CANARY; }); };
        bool before = whole(a.start - GUARD, GUARD), after = whole(a.start + a.bytes, padded(a.bytes) - a.bytes + GUARD);
        if (before && after) continue;
        snprintf(launch.error, launch.error_bytes, "%s: global write out of bounds: memory %s an arena of %zu bytes has changed", launch.name,
                 before ? "past the end of" : "before the start of", a.bytes);
        return;
    }
}
} // namespace emulated

using namespace emulated;

EXPORT Context* emulated_open(int checked) { return new Context{checked != 0, {}, 1}; }

EXPORT void emulated_close(Context* context) { delete context; }

// Zeroed memory, aligned to 256 bytes, with guard zones; null when there is none.
EXPORT char* emulated_alloc(Context* context, uint64_t bytes) {
    char* p = pages(padded(bytes) + 2 * GUARD);
    if (!p) return nullptr;
    memset(p, CANARY, GUARD);
    memset(p + GUARD + bytes, CANARY, padded(bytes) - bytes + GUARD);
    Allocation a{p + GUARD, bytes, nullptr, nullptr};
    if (context->checked) {
        a.written = reinterpret_cast<uint8_t*>(pages(bytes));
        a.cells = reinterpret_cast<Cell*>(pages(bytes * sizeof(Cell)));
        memset(a.written, 1, bytes);
    }
    context->allocations.push_back(a);
    return a.start;
}

EXPORT void emulated_free(Context* context, char* start) {
    for (size_t i = 0; i < context->allocations.size(); i++) {
        Allocation a = context->allocations[i];
        if (a.start != start) continue;
        munmap(a.start - GUARD, padded(a.bytes) + 2 * GUARD);
        if (a.written) munmap(a.written, std::max<size_t>(a.bytes, 1)), munmap(a.cells, std::max<size_t>(a.bytes * sizeof(Cell), 1));
        context->allocations.erase(context->allocations.begin() + i);
        return;
    }
}

// Notes that the host wrote memory.
EXPORT void emulated_wrote(Context* context, const char* start, uint64_t bytes) {
    Allocation* a = allocation_of(*context, start);
    if (a && a->written) memset(a->written + (start - a->start), 1, bytes);
}

// Forgets that a rectangle was ever written.
EXPORT void emulated_forget(Context* context, const Region* r) {
    Allocation* a = allocation_of(*context, r->start);
    if (!a || !a->written) return;
    for (uint64_t row = 0; row < r->rows; row++) memset(a->written + (r->start - a->start) + row * r->pitch, 0, r->row_bytes);
}

// The first byte of a rectangle that was not written since, counted without the gaps between rows; -1 if all were.
EXPORT int64_t emulated_unwritten(Context* context, const Region* r) {
    Allocation* a = allocation_of(*context, r->start);
    if (!a || !a->written) return -1;
    for (uint64_t row = 0; row < r->rows; row++) {
        const uint8_t* written = a->written + (r->start - a->start) + row * r->pitch;
        const void* gap = memchr(written, 0, r->row_bytes);
        if (gap) return row * r->row_bytes + (static_cast<const uint8_t*>(gap) - written);
    }
    return -1;
}

// Runs a launch to its end. On failure `launch->error` has a message and the result is 1.
EXPORT int emulated_launch(Context* context, const Launch* launch) {
    launch->error[0] = 0;
    uint64_t threads = uint64_t(launch->block[0]) * launch->block[1] * launch->block[2];
    if (threads == 0 || threads > MOST_THREADS || launch->grid[0] == 0 || launch->grid[1] == 0 || launch->grid[2] == 0 ||
        launch->grid[1] > 65535 || launch->grid[2] > 65535) {
        snprintf(launch->error, launch->error_bytes, "%s: a grid of %u x %u x %u blocks of %u x %u x %u threads cannot be launched", launch->name,
                 launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0], launch->block[1], launch->block[2]);
        return 1;
    }
    if (launch->dynamic_shared > std::min<uint32_t>(launch->shared_limit, MOST_SHARED)) {
        snprintf(launch->error, launch->error_bytes, "%s: asks for %u bytes of shared memory, the chip has %u for a block", launch->name,
                 launch->dynamic_shared, launch->shared_limit);
        return 1;
    }
    Block& b = *take_block();
    b.context = context, b.launch = launch, b.threads = unsigned(threads);
    b.failed = false, b.random = launch->seed, b.static_shared = 0, b.program_counter = nullptr;
    b.launch_epoch = ++context->epoch;
    memset(b.warp_epoch, 0, sizeof b.warp_epoch);
    shared_span(b);
    if (context->checked && !b.shared_cells) b.shared_cells = reinterpret_cast<Cell*>(pages(b.shared_bytes * sizeof(Cell)));
    if (b.failed || (context->checked && !b.shared_cells)) {
        snprintf(launch->error, launch->error_bytes, "%s: no memory for the emulator", launch->name);
        return 1;
    }
    if (context->checked && b.cells_of != context->serial) {
        madvise(b.shared_cells, b.shared_bytes * sizeof(Cell), MADV_DONTNEED); // all zero again
        b.cells_of = context->serial;
    }
    track_regions(b);
    poison(b);
    current = &b;
    run_blocks(b);
    current = nullptr;
    if (!launch->error[0]) check_canaries(*context, *launch);
    std::lock_guard lock(spare_lock);
    spare.push_back(&b);
    return launch->error[0] != 0;
}
