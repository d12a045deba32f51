// Fibers: each thread of a block has a stack; a switch saves six registers and changes the stack pointer.
#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <dlfcn.h>

namespace emulated {
__thread Block* current;
}
extern "C" void emulated_switch(void** save, void* to);

#if defined(__x86_64__)
constexpr int SAVED = 6;
asm(R"(.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch,@function
emulated_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    pop %rcx
    jmp *%rcx
.size emulated_switch,.-emulated_switch
)");
// The stack of a fiber that has not run: the registers to restore, then where to go. At a function's first instruction the
// stack pointer is 8 below a multiple of 16.
static void* fresh_stack(char* top, void (*entry)()) {
    auto* s = reinterpret_cast<void**>(uintptr_t(top) & ~uintptr_t(15)) - 1;
    *s = nullptr;
    *--s = reinterpret_cast<void*>(entry);
    return s - SAVED;
}
#elif defined(__aarch64__)
asm(R"(.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch,%function
emulated_switch:
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret
.size emulated_switch,.-emulated_switch
)");
static void* fresh_stack(char* top, void (*entry)()) {
    auto* s = reinterpret_cast<void**>(uintptr_t(top) & ~uintptr_t(15)) - 20;
    memset(s, 0, 160);
    s[11] = reinterpret_cast<void*>(entry); // x30, the return address
    return s;
}
#else
#error "the emulated CUDA driver switches fibers on x86-64 and aarch64 alone"
#endif

namespace emulated {

uint3 thread_index() { return self().index; }
uint3 block_index() { return current->index; }
uint3 block_size() { return {current->launch->block[0], current->launch->block[1], current->launch->block[2]}; }
uint3 grid_size() { return {current->launch->grid[0], current->launch->grid[1], current->launch->grid[2]}; }
unsigned lane() { return current->running % WARP; }

static uint32_t draw(Block& b) { return (b.random = b.random * 1664525u + 1013904223u) >> 8; }

// One of the ready lanes of a warp.
static unsigned pick(Block& b, uint32_t lanes, unsigned from) {
    switch (b.launch->order) {
    case Order::Ascending: {
        uint32_t later = from < WARP ? lanes & ~((1u << from) - 1) : 0;
        return std::countr_zero(later ? later : lanes);
    }
    case Order::Descending: return 31 - std::countl_zero(lanes);
    case Order::Random: {
        unsigned turn = draw(b) % WARP;
        return (std::countr_zero(std::rotr(lanes, turn)) + turn) % WARP;
    }
    }
    return 0;
}

static void go_to(unsigned next) {
    Block& b = *current;
    if (next == b.running) return;
    Fiber& from = self();
    b.running = next;
    emulated_switch(&from.stack, self().stack);
}

[[noreturn]] static void leave_block() {
    emulated_switch(&self().stack, current->host_stack);
    __builtin_trap();
}

// Hands over to the next ready fiber, warp by warp; with none left the host looks at what they all wait for.
static void schedule() {
    Block& b = *current;
    unsigned warps = (b.threads + WARP - 1) / WARP, warp = b.running / WARP, from = b.running % WARP;
    if (b.launch->order == Order::Random) warp = draw(b) % warps;
    for (unsigned k = 0; k < warps; k++, from = 0) {
        if (b.ready[warp]) return go_to(warp * WARP + pick(b, b.ready[warp], from));
        warp = b.launch->order == Order::Descending ? (warp ? warp - 1 : warps - 1) : (warp + 1) % warps;
    }
    emulated_switch(&self().stack, b.host_stack);
}

void wait(Status status) {
    Block& b = *current;
    self().status = status;
    b.ready[b.running / WARP] &= ~(1u << b.running % WARP);
    schedule();
}

void make_ready(unsigned i) {
    current->fibers[i].status = Status::Ready;
    current->ready[i / WARP] |= 1u << i % WARP;
}

void give_way() {
    if (current->launch->order == Order::Random) schedule();
}

static void thread_main() {
    Block& b = *current;
    b.launch->kernel->call(b.launch->arguments);
    Fiber& me = self();
    if (!me.copies.empty()) fail("a thread ends with a cp.async on its way, issued at %s:%d", me.copies[0].where.file, me.copies[0].where.line);
    b.alive--;
    wait(Status::Done);
    __builtin_trap();
}

void start_block(Block& b) {
    b.alive = b.threads;
    b.waiting = 0;
    b.phased.clear();
    memset(b.ready, 0, sizeof b.ready);
    for (unsigned i = 0; i < b.threads; i++) {
        Fiber& f = b.fibers[i];
        const uint32_t* n = b.launch->block;
        f.index = {i % n[0], i / n[0] % n[1], i / n[0] / n[1]};
        f.group = 0;
        f.copies.clear();
        f.product_group = 0, f.fenced = 0;
        f.products.clear();
        // The tops of the stacks are spread over the sets of the cache.
        f.stack = fresh_stack(b.stacks + (i + 1) * STACK - 64 - i * 320 % 4096, thread_main);
        make_ready(i);
    }
    b.running = b.launch->order == Order::Descending ? b.threads - 1 : 0;
    emulated_switch(&b.host_stack, self().stack);
}

void fail(const char* format, ...) {
    Block& b = *current;
    if (!b.failed) {
        b.failed = true;
        uint3 t = self().index, g = b.index;
        char* at = b.launch->error;
        char* end = at + b.launch->error_bytes;
        at += snprintf(at, end - at, "%s: block (%u, %u, %u), thread (%u, %u, %u): ", b.launch->name, g.x, g.y, g.z, t.x, t.y, t.z);
        va_list list;
        va_start(list, format);
        at += vsnprintf(at, end - at, format, list);
        va_end(list);
        // The host looks the line of an instrumented access up.
        Dl_info info;
        if (b.program_counter && at < end && dladdr(b.program_counter, &info))
            snprintf(at, end - at, " @%#tx", static_cast<char*>(b.program_counter) - 1 - static_cast<char*>(info.dli_fbase));
    }
    leave_block();
}
} // namespace emulated
