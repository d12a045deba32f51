//! Speed of the convolution kernels on this machine: `cargo run --release --example conv_bench [threads] [word] [batch]`.
//!
//! Prints GFLOP/s, counting the multiply-adds that touch real pixels, and the share of the peak of all threads: the rate
//! of independent fused multiply-adds in registers, measured in the same run. Times are the best of several runs, with
//! packed weights and warm buffers. `word` picks the shapes whose line contains it.

use defrost::base::{Math, Shape, Ty, Window};
use defrost::device::cpu::Cpu;
use defrost::device::cpu::tile::{Strip, Tile, strip};
use defrost::device::{Arena, Arenas, Call, Device, Operand, Place, Write};
use defrost::ops::{Backend, Conv2d, Conv2dDw, Conv2dDx, Op};
use std::time::Instant;

fn cpu_time() -> f64 {
    #[repr(C)]
    struct Ts(i64, i64);
    unsafe extern "C" {
        fn clock_gettime(clock: i32, ts: *mut Ts) -> i32;
    }
    let mut ts = Ts(0, 0);
    unsafe { clock_gettime(3, &mut ts) };
    ts.0 as f64 + ts.1 as f64 * 1e-9
}

/// Seconds of the fastest of several runs.
fn best(mut f: impl FnMut()) -> f64 {
    let (start, mut best, mut runs) = (Instant::now(), f64::MAX, 0);
    while runs < 4 || (start.elapsed().as_secs_f64() < 0.4 && runs < 100) {
        let t = cpu_time();
        f();
        best = best.min(cpu_time() - t);
        runs += 1;
    }
    best
}

/// GFLOP/s of all threads on a tile whose operands never leave the first cache.
fn peak(cpu: &Cpu) -> f64 {
    let (tile, depth, repeats) = (Tile::of(cpu.isa), 64, 20_000);
    let work = |_: usize| {
        let (x, w) = (vec![0.5f32; depth * tile.rows], vec![0.25f32; depth * tile.width()]);
        let mut y = vec![0f32; tile.rows * tile.width()];
        let args = Strip {
            x: x.as_ptr(),
            pixel: depth,
            rows: 1,
            row: 0,
            taps: 1,
            tap: 0,
            depth,
            w: w.as_ptr(),
            y: y.as_mut_ptr(),
            y_pixel: tile.width(),
            cols: tile.width(),
            add: false,
        };
        let kernel = strip(cpu.isa, tile.rows, tile.vectors);
        for _ in 0..repeats {
            // SAFETY: the three buffers have the extents that the arguments name.
            unsafe { kernel(std::hint::black_box(&args)) };
        }
    };
    let seconds = best(|| cpu.pool.run(&work));
    2.0 * (cpu.threads() * repeats * depth * tile.rows * tile.width()) as f64 / seconds / 1e9
}

/// GFLOP/s of one op on random-looking data.
fn measure(cpu: &Cpu, op: Op, ins: &[Shape]) -> f64 {
    let tys: Vec<Ty> = ins.iter().map(|&s| Ty::f32(s)).collect();
    let outs = op.infer(&tys).expect("the shapes fit");
    let mut arenas = Arenas::new(cpu).expect("memory");
    let mut bytes = 0;
    let mut place = |ty: Ty| {
        let place = Place { arena: Arena::Temps, offset: bytes, pitch: ty.shape.cols() };
        bytes += ty.bytes().next_multiple_of(64);
        Operand { ty, place, write: Write::Set }
    };
    let (sources, target) = (tys.iter().map(|&ty| place(ty)).collect::<Vec<_>>(), place(outs[0]));
    let (scratch, derived) = (cpu.scratch(&op, &tys, &outs), cpu.derived(&op, &tys, &outs));
    arenas.ensure(cpu, Arena::Temps, bytes + scratch).expect("memory");
    arenas.ensure(cpu, Arena::Derived, derived).expect("memory");
    let values: Vec<f32> = (0..bytes / 4).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect();
    cpu.write(arenas.get_mut(Arena::Temps), 0, bytemuck::cast_slice(&values));
    let call = Call {
        device: cpu,
        arenas: &arenas,
        ins: &sources,
        outs: &[target],
        scratch: Some((bytes, scratch)),
        derived: Some((Arena::Derived, 0, derived)),
    };
    let prepare = best(|| <Cpu as Backend>::prepare(&op, &call));
    if std::env::var_os("BOTH").is_some() {
        print!("[prepare {:.2} ms] ", prepare * 1e3);
    }
    let seconds = best(|| <Cpu as Backend>::run(&op, &call));
    op.flops(&tys, &outs) as f64 / seconds / 1e9
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args.get(1).and_then(|t| t.parse().ok()).unwrap_or(0);
    let word = args.get(2).map_or("", String::as_str);
    let batch = args.get(3).and_then(|t| t.parse().ok()).unwrap_or(16);
    let shapes = [
        (Window::same(3, 1), [56, 56], 256, 256),
        (Window::same(3, 1), [28, 28], 512, 512),
        (Window::same(3, 1), [14, 14], 512, 512),
        (Window::same(3, 1), [224, 224], 64, 64),
        (Window::same(1, 1), [28, 28], 512, 128),
        (Window::same(1, 1), [19, 19], 728, 728),
        (Window::same(1, 1), [14, 14], 1024, 256),
        (Window::same(1, 1), [8, 8], 2048, 320),
        (Window::same(1, 1), [7, 7], 1024, 128),
        (Window::same(3, 1), [35, 35], 96, 96),
        (Window::same(3, 1), [14, 14], 128, 32),
        (Window::same(3, 1), [7, 7], 128, 32),
        (Window::same(3, 1), [8, 8], 448, 384),
        (Window::rect(1, 7), [17, 17], 160, 160),
        (Window::rect(7, 1), [17, 17], 160, 192),
        (Window::same(5, 1), [35, 35], 48, 64),
        (Window::valid(3, 2), [35, 35], 288, 384),
        (Window::same(1, 2), [74, 74], 128, 256),
        (Window::same(3, 1), [224, 224], 3, 64),
        (Window::valid(3, 2), [299, 299], 3, 32),
        (Window::padded(7, 2, 3), [224, 224], 3, 64),
    ];
    let cpu = Cpu::with(defrost::device::cpu::Isa::best(), threads);
    let cpu = std::env::var("DEFROST_ISA").map_or(cpu, |_| Cpu::new(threads).expect("an instruction set of this machine"));
    let peak = peak(&cpu);
    println!("{}, batch {batch}, peak {peak:.0} GFLOP/s", cpu.describe());
    println!("{:34} {:>14} {:>14} {:>14}", "", "forward", "dx", "dw");
    for (window, input, cin, cout) in shapes {
        let line = format!("{window} {}x{} {cin}->{cout}", input[0], input[1]);
        if !line.contains(word) {
            continue;
        }
        let [kh, kw] = window.kernel;
        let [oh, ow] = window.on(input[0], input[1]).expect("the window has a place").output;
        let x = Shape::from([batch, input[0], input[1], cin]);
        let (w, dy) = (Shape::from([kh, kw, cin, cout]), Shape::from([batch, oh, ow, cout]));
        let forward = measure(&cpu, Conv2d::new(window).into(), &[x, w]);
        let dx = measure(&cpu, Conv2dDx { window, input, math: Math::Full }.into(), &[dy, w]);
        let dw = measure(&cpu, Conv2dDw::new(window).into(), &[x, dy]);
        let cell = |rate: f64| format!("{rate:6.1} {:5.1}%", 100.0 * rate / peak);
        println!("{line:34} {:>14} {:>14} {:>14}", cell(forward), cell(dx), cell(dw));
        let (threads, isa) = (cpu.threads(), cpu.isa);
        if window == Window::same(3, 1) && cin > 3 && std::env::var_os("BOTH").is_some() {
            let cpu = Cpu::with(isa, threads).exact(true);
            let forward = measure(&cpu, Conv2d::new(window).into(), &[x, w]);
            let dx = measure(&cpu, Conv2dDx { window, input, math: Math::Full }.into(), &[dy, w]);
            let dw = measure(&cpu, Conv2dDw::new(window).into(), &[x, dy]);
            println!("{:34} {:>14} {:>14} {:>14}", "  exact", cell(forward), cell(dx), cell(dw));
        }
    }
}
