// What Hopper adds: products of warpgroups, which read shared memory while the threads go on, and barriers in shared memory, which some
// threads arrive at and others wait for.
#include "runtime.h"

#include <algorithm>

namespace emulated {

// Element (i, k) of a swizzled matrix: bits 4 to 6 of the address are those of the plain layout xor bits 7 to 9.
static const uint16_t* element(const Swizzled& m, int i, int k) {
    int plain = m.k_inner ? i * 128 + k * 2 : i / 64 * m.panel + k * 128 + i % 64 * 2;
    uintptr_t at = reinterpret_cast<uintptr_t>(m.start) + plain;
    return reinterpret_cast<const uint16_t*>(at ^ (at >> 7 & 7) << 4);
}

// Reads `rows` x 16 of a matrix, from row `first` on, checking every 16 bytes once.
static void read_swizzled(const Swizzled& m, int first, int rows, float (*to)[16], Where at) {
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < 16; k++) {
            const uint16_t* p = element(m, first + i, k);
            if ((m.k_inner ? k : i) % 8 == 0) product_access(p, 16, at);
            to[i][k] = std::bit_cast<float>(unsigned(*p) << 16);
        }
    }
}

// Carries a warp's part of a product out: 16 rows of a by all columns of b.
static void multiply_swizzled(unsigned warp, const Pending& p) {
    static thread_local float a[16][16], b[256][16];
    read_swizzled(p.a, warp % 4 * 16, 16, a, p.where);
    read_swizzled(p.b, 0, p.cols, b, p.where);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < p.cols / 2; i++) {
            int row = lane / 4 + i / 2 % 2 * 8, col = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float sum = p.keep ? p.sums[lane][i] : 0.0f;
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[col][k];
            p.sums[lane][i] = sum;
        }
    }
}

void begin_product(Block& b, unsigned warp, Fiber* lanes) {
    const auto& first = *static_cast<Product*>(lanes[0].operand);
    Pending p{first.a, first.b, first.cols, lanes[0].product_group, first.keep, {}, lanes[0].where};
    if (uintptr_t(p.a.start) % 16 || uintptr_t(p.b.start) % 16)
        fail("%s:%d: an operand of a product is not aligned to 16 bytes", p.where.file, p.where.line);
    for (int lane = 0; lane < 32; lane++) p.sums[lane] = static_cast<Product*>(lanes[lane].operand)->d;
    if (b.launch->landing == Landing::AtOnce) multiply_swizzled(warp, p);
    lanes[0].products.push_back(p);
}

void finish_products(Block& b, unsigned warp, Fiber* lanes) {
    int pending = *static_cast<int*>(lanes[0].operand);
    auto& products = lanes[0].products;
    auto later = [&](const Pending& p) { return p.group >= lanes[0].product_group - pending; };
    auto done = std::find_if(products.begin(), products.end(), later);
    if (b.launch->landing == Landing::AtWait) std::for_each(products.begin(), done, [&](const Pending& p) { multiply_swizzled(warp, p); });
    products.erase(products.begin(), done);
}

void product_commit() { self().product_group++; }
void proxy_fence() { self().fenced = epoch(); }

static Phased& phased(const void* at, Where where) {
    for (Phased& p : current->phased)
        if (p.at == at) return p;
    fail("%s:%d: a barrier in shared memory that was not made", where.file, where.line);
}

void phase_init(void* at, unsigned arrivals, Where where) {
    auto* p = static_cast<char*>(at);
    if (p < current->shared_start || p + 8 > current->shared_start + current->shared_bytes || uintptr_t(p) % 8)
        fail("%s:%d: a barrier is not eight aligned bytes of shared memory", where.file, where.line);
    current->phased.push_back({at, arrivals, arrivals, 0, {}, {}});
}

// Ends the phase if everyone has arrived; of copies whose landing is to be an arrival it is enough that someone waits.
static void end_phase(Phased& p) {
    Block& b = *current;
    if (p.missing > p.landing.size() || (p.missing > 0 && p.waiting.empty())) return;
    unsigned me = b.running;
    for (Landed& l : p.landing) {
        b.running = l.thread;
        for (const Copy& c : l.copies) {
            if (b.launch->landing == Landing::AtWait) land(c);
            access(c.to, c.size, Access::Write, c.where);
        }
    }
    b.running = me;
    p.landing.clear();
    p.missing = p.arrivals, p.phase ^= 1;
    b.context->epoch++;
    for (unsigned thread : p.waiting) make_ready(thread);
    p.waiting.clear();
}

void phase_arrive(void* at, Where where) {
    Phased& p = phased(at, where);
    if (p.missing == p.landing.size()) fail("%s:%d: more arrivals at a barrier than it was made for", where.file, where.line);
    p.missing--;
    end_phase(p);
    give_way();
}

void phase_arrive_with_copies(void* at, Where where) {
    Phased& p = phased(at, where);
    if (p.missing == p.landing.size()) fail("%s:%d: more arrivals at a barrier than it was made for", where.file, where.line);
    p.landing.push_back({current->running, std::move(self().copies)});
    self().copies.clear();
    end_phase(p);
    give_way();
}

void phase_wait(void* at, unsigned parity, Where where) {
    for (;;) {
        Phased& p = phased(at, where);
        if (p.phase != parity) return;
        self().where = where;
        p.waiting.push_back(current->running);
        end_phase(p);
        if (phased(at, where).phase != parity) return;
        wait(Status::AtPhase);
    }
}
} // namespace emulated
