// The emulator's inside: what its four files share. Kernels see cuda_emulated.h alone.
#pragma once
#include "cuda_emulated.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

#include <atomic>
#include <vector>

namespace emulated {

enum class Status : uint8_t { Ready, AtBarrier, AtCollective, AtPhase, Done };

// A cp.async on its way.
struct Copy {
    char* to;
    const char* from;
    int size, bytes, group;
    Where where;
};

// A product on its way, of the warp that the fiber belongs to; the first lane keeps it.
struct Pending {
    Swizzled a, b;
    int cols, group;
    bool keep;
    float* sums[32];
    Where where;
};

struct Fiber {
    uint3 index;
    void* stack; // the saved stack pointer while another fiber runs
    Status status;
    Collective kind; // what it waits for, with which lanes and operand, and where
    uint32_t mask;
    void* operand;
    Where where;
    int group; // the cp.async group that is open
    std::vector<Copy> copies;
    int product_group;
    std::vector<Pending> products;
    uint32_t fenced; // the epoch of its latest proxy fence
};

// Copies of a thread whose landing counts as its arrival.
struct Landed {
    unsigned thread;
    std::vector<Copy> copies;
};

// A barrier in shared memory: when all of `arrivals` have come, its phase ends and those who wait for that go on.
struct Phased {
    void* at;
    unsigned arrivals, missing, phase;
    std::vector<Landed> landing;
    std::vector<unsigned> waiting;
};

// What is known of one byte of memory: who wrote it last, who has read it since, and in which epochs. An epoch ends at a
// barrier of the block; within it a warp's own epochs end at __syncwarp.
struct Cell {
    uint32_t write_epoch, write_warp_epoch, read_epoch, read_warp_epoch, foreign_read_epoch;
    uint16_t writer, reader;
    uint8_t writes, reads;
};
enum Writes : uint8_t { NotWritten, Written, WrittenByAtomic, OnItsWay };
enum Reads : uint8_t { NotRead, ReadByOne, ReadByWarp, ReadByMany };

// A piece of global memory with guard zones on both sides; a checked context keeps what is known of each byte.
struct Allocation {
    char* start;
    size_t bytes;
    uint8_t* written;
    Cell* cells;
};

// A rectangle of global memory that a launch may touch: `rows` rows of `row_bytes`, `pitch` bytes apart.
struct Region {
    char* start;
    uint64_t rows, row_bytes, pitch;
    int32_t writable;
    const char* name;
};
struct Tracked : Region {
    const Allocation* allocation;
    bool shared_with_writes; // overlaps memory that the launch may write
    char* end() const { return start + (rows ? (rows - 1) * pitch + row_bytes : 0); }
    bool holds(const char* p, size_t n) const {
        if (p < start || p + n > end()) return false;
        if (rows == 1 || pitch == row_bytes) return true;
        return size_t(p - start) % pitch + n <= row_bytes;
    }
};

enum class Order : int32_t { Ascending, Descending, Random };
enum class Landing : int32_t { AtOnce, AtWait };

struct Launch {
    const Kernel* kernel;
    const char* name;
    uint32_t grid[3], block[3], dynamic_shared, shared_limit;
    void** arguments;
    const Region* regions;
    uint64_t region_count;
    Order order;
    Landing landing;
    uint32_t seed;
    char* error;
    uint64_t error_bytes;
};

constexpr unsigned MOST_THREADS = 1024, WARP = 32, MOST_SHARED = 232448;

// Memory and time of one emulated device; launches on it follow one another.
struct Context {
    bool checked;
    std::vector<Allocation> allocations;
    uint32_t epoch = 1;
    uint64_t serial = ++contexts;
    static inline std::atomic<uint64_t> contexts = 0;
};

// The block that runs on a thread of the host.
struct Block {
    Context* context;
    const Launch* launch;
    Fiber fibers[MOST_THREADS];
    uint32_t ready[MOST_THREADS / WARP]; // a bit per lane
    uint32_t warp_epoch[MOST_THREADS / WARP];
    unsigned threads, alive, running, waiting;
    uint3 index;
    uint32_t launch_epoch, block_epoch;
    void* host_stack;
    void* program_counter; // of the access that is being checked
    bool failed;
    uint32_t random;
    char* stacks;
    std::vector<Phased> phased;
    // The thread-local segment of this shared object: shared memory.
    char* shared_start;
    size_t shared_bytes;
    Cell* shared_cells;
    uint64_t cells_of; // the context whose epochs are in the cells
    uint32_t static_shared; // bytes of static shared memory that were touched, at least
    std::vector<Tracked> regions;
    Tracked* latest;
};

extern __thread Block* current;
constexpr size_t STACK = 17 * 4096; // an odd number of pages, so that stacks do not share cache sets
extern "C" thread_local unsigned char smem_raw[];

inline uint32_t epoch() { return current->context->epoch; }
inline Fiber& self() { return current->fibers[current->running]; }

// Ends the launch with a message; never returns to the fiber that calls it.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);
// fiber.cpp
void start_block(Block&);
void wait(Status);          // the running fiber waits, another one runs
void make_ready(unsigned i); // fiber `i` may run again
void give_way();             // another ready fiber may run first
// collective.cpp
void land(const Copy&);
// hopper.cpp
void begin_product(Block&, unsigned warp, Fiber* lanes);
void finish_products(Block&, unsigned warp, Fiber* lanes);
// shadow.cpp
void shared_span(Block&);
void product_access(const void*, size_t bytes, Where at); // a read by a warpgroup's product
} // namespace emulated
