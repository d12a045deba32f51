// What several threads do together: barriers, warp collectives, and copies that land later.
#include "runtime.h"

#include <algorithm>

namespace emulated {

void barrier(Where at) {
    Block& b = *current;
    Fiber& me = self();
    me.where = at;
    if (++b.waiting < b.threads) return wait(Status::AtBarrier);
    b.waiting = 0;
    b.context->epoch++;
    for (unsigned i = 0; i < b.threads; i++) {
        Fiber& f = b.fibers[i];
        if (&f == &me) continue;
        if (f.where.line != at.line || strcmp(f.where.file, at.file) != 0)
            fail("a barrier is not reached by all threads: thread %u waits at %s:%d, this one at %s:%d", i, f.where.file, f.where.line,
                 at.file, at.line);
        make_ready(i);
    }
    give_way();
}

// d = a b + c, a 16 x 16 (or 16 x 8 for tf32), b by 8 columns: fragments as the PTX ISA lays them out. Lane 4 g + t holds rows
// g and g + 8, and columns from 2 t (bf16 pairs) or t (tf32) on.
template <int K, class Element> static void multiply(Fiber* warp, Element element) {
    float a[16][K], b[K][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        auto& m = *static_cast<Mma*>(warp[lane].operand);
        int g = lane / 4, t = lane % 4;
        element(m, g, t, a, b);
        for (int i = 0; i < 4; i++) c[g + i / 2 * 8][2 * t + i % 2] = m.c[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < K; k++)
            for (int j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++) {
        auto& m = *static_cast<Mma*>(warp[lane].operand);
        for (int i = 0; i < 4; i++) m.d[i] = c[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
    }
}

static float low(unsigned pair) { return std::bit_cast<float>(pair << 16); }
static float high(unsigned pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
// The hardware looks at 19 bits.
static float tf32(unsigned bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

static void multiply_all(Fiber* warp) {
    if (static_cast<Mma*>(warp[0].operand)->tile == Tile::Bf16_16x8x16) {
        multiply<16>(warp, [](Mma& m, int g, int t, float (*a)[16], float (*b)[8]) {
            for (int i = 0; i < 4; i++) {
                int row = g + i % 2 * 8, column = 2 * t + i / 2 * 8;
                a[row][column] = low(m.a[i]);
                a[row][column + 1] = high(m.a[i]);
            }
            for (int i = 0; i < 2; i++) {
                b[2 * t + 8 * i][g] = low(m.b[i]);
                b[2 * t + 8 * i + 1][g] = high(m.b[i]);
            }
        });
    } else {
        multiply<8>(warp, [](Mma& m, int g, int t, float (*a)[8], float (*b)[8]) {
            for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = tf32(m.a[i]);
            for (int i = 0; i < 2; i++) b[t + 4 * i][g] = tf32(m.b[i]);
        });
    }
}

// Lane 8 j + i names row i of matrix j; lane 4 i + t receives elements 2 t and 2 t + 1 of row i (of column i, if transposed).
static void load_matrices(Block& b, Fiber* warp) {
    const uint16_t* rows[32];
    int count = static_cast<LoadMatrix*>(warp[0].operand)->count;
    unsigned me = b.running;
    for (int lane = 0; lane < 8 * count; lane++) {
        b.running = unsigned(&warp[lane] - b.fibers);
        rows[lane] = static_cast<const uint16_t*>(static_cast<LoadMatrix*>(warp[lane].operand)->row);
        if (uintptr_t(rows[lane]) % 16) fail("the row of lane %d of ldmatrix at %s:%d is not aligned to 16 bytes", lane, warp[lane].where.file, warp[lane].where.line);
        access(rows[lane], 16, Access::Read, warp[lane].where);
    }
    b.running = me;
    for (int lane = 0; lane < 32; lane++) {
        auto& load = *static_cast<LoadMatrix*>(warp[lane].operand);
        int i = lane / 4, t = lane % 4;
        for (int j = 0; j < count; j++) {
            const uint16_t* const* m = rows + 8 * j;
            uint32_t first = load.transposed ? m[2 * t][i] : m[i][2 * t], second = load.transposed ? m[2 * t + 1][i] : m[i][2 * t + 1];
            load.result[j] = first | second << 16;
        }
    }
}

static void shuffle(Fiber* warp, uint32_t mask, Where at) {
    for (uint32_t m = mask; m; m &= m - 1) {
        int lane = std::countr_zero(m);
        auto& s = *static_cast<Shuffle*>(warp[lane].operand);
        if (!(mask >> s.source & 1)) fail("%s:%d: lane %d shuffles from lane %u, which is not in the mask", at.file, at.line, lane, s.source);
        s.result = static_cast<Shuffle*>(warp[s.source].operand)->value;
    }
}

static void ballot(Fiber* warp, uint32_t mask) {
    unsigned votes = 0;
    for (uint32_t m = mask; m; m &= m - 1) votes |= unsigned(static_cast<Ballot*>(warp[std::countr_zero(m)].operand)->vote) << std::countr_zero(m);
    for (uint32_t m = mask; m; m &= m - 1) static_cast<Ballot*>(warp[std::countr_zero(m)].operand)->result = votes;
}

void collective(Collective kind, unsigned mask, void* operand, Where at) {
    Block& b = *current;
    unsigned me = b.running, warp = me / WARP, width = std::min(b.threads - warp * WARP, WARP);
    Fiber* lanes = b.fibers + warp * WARP;
    if (!(mask >> me % WARP & 1)) fail("%s:%d: a lane calls with mask %#x, which does not have it", at.file, at.line, mask);
    if (kind >= Collective::Mma && width < WARP) fail("%s:%d: a tensor-core operation in a warp of %u threads", at.file, at.line, width);
    Fiber& f = lanes[me % WARP];
    f.kind = kind, f.mask = mask, f.operand = operand, f.where = at;
    uint32_t wanted = width < WARP ? mask & ((1u << width) - 1) : mask;
    bool complete = true;
    for (uint32_t m = wanted & ~(1u << me % WARP); m && complete; m &= m - 1) {
        Fiber& o = lanes[std::countr_zero(m)];
        complete = o.status == Status::AtCollective && o.kind == kind && o.mask == mask && o.where.line == at.line;
    }
    if (!complete) return wait(Status::AtCollective);
    switch (kind) {
    case Collective::Mma: multiply_all(lanes); break;
    case Collective::LoadMatrix: load_matrices(b, lanes); break;
    case Collective::Shuffle: shuffle(lanes, wanted, at); break;
    case Collective::Ballot: ballot(lanes, wanted); break;
    case Collective::SyncWarp: b.warp_epoch[warp]++; break;
    case Collective::Product: begin_product(b, warp, lanes); break;
    case Collective::ProductWait: finish_products(b, warp, lanes); break;
    }
    for (uint32_t m = wanted; m; m &= m - 1) make_ready(warp * WARP + std::countr_zero(m));
    give_way();
}

void land(const Copy& c) {
    memcpy(c.to, c.from, c.bytes);
    memset(c.to + c.bytes, 0, c.size - c.bytes);
}

void copy_commit() { self().group++; }
} // namespace emulated
