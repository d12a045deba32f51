use defrost::{
    device::{Arena, cpu::Cpu},
    exec::*,
    ir::*,
    models::*,
    ops::Sgd,
    train::*,
};
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let backbone: Backbone = a[1].parse().unwrap();
    let mut spec = Spec::new(backbone, 8);
    spec.batch = a[2].parse().unwrap();
    if let Ok(s) = a[3].parse::<usize>()
        && s > 0
    {
        spec.size = s
    }
    spec.purpose = Purpose::Train;
    let model = spec.build().unwrap();
    let graph = training_graph(&model, &Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 })).unwrap();
    let cpu = Cpu::new(0).unwrap();
    let t = Instant::now();
    let mut program = Program::compile(graph, &cpu, Passes::default()).unwrap();
    println!("compiled in {:?}: {} rows, {} steps", t.elapsed(), program.graph().nodes.len(), program.steps().len());
    for ar in Arena::ALL {
        println!("  {ar:?} {:.1} MiB", program.plan().bytes[ar.index()] as f64 / 1048576.0);
    }
    if a.len() > 4 {
        for st in program.steps() {
            if st.op.name() == a[4] {
                println!(
                    "{} {} {:?} {:?} -> {}",
                    st.layer,
                    st.op,
                    st.phase,
                    st.ins.iter().map(|o| o.ty).collect::<Vec<_>>(),
                    st.outs[0].ty
                );
            }
        }
    }
    let mut s = Session::new(cpu).unwrap();
    s.reserve(&program).unwrap();
    let g = program.graph().clone();
    for &v in g.params.iter().chain(&g.states) {
        let n = g.ty(v).shape.len();
        let init = match g.role(v) {
            Role::Param { init, .. } | Role::State { init } => init,
            _ => unreachable!(),
        };
        let mut seed = v.0 as u64 + 1;
        let mut r = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
        };
        let data: Vec<f32> = match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::GlorotUniform { fan_in, fan_out } => {
                let l = (6.0 / (fan_in + fan_out) as f32).sqrt();
                (0..n).map(|_| r() * l).collect()
            }
        };
        s.set(&program, g.name(v), &data[..]).unwrap();
    }
    let n = spec.batch;
    let px: Vec<f32> = (0..n * spec.size * spec.size * 3).map(|i| ((i * 2654435761) % 255) as f32).collect();
    let mut tg = vec![0f32; n * 8];
    (0..n).for_each(|i| tg[i * 8 + i % 8] = 1.0);
    s.run(&mut program, &[("pixels", &px), ("targets", &tg), ("weights", &vec![1.0; n]), ("knobs", &[0.01, 1.0, 0.0, 0.0])]).unwrap();
    println!("loss {:?}", s.get(&program, "loss").unwrap());
    let mut by: std::collections::BTreeMap<String, (f64, u64)> = Default::default();
    for i in 0..3 {
        let t = Instant::now();
        let last = i == 2;
        let mut hook = |st: &defrost::pass::plan::Step, d: std::time::Duration| {
            if last {
                let ins: Vec<_> = st.ins.iter().map(|o| o.ty).collect();
                let outs: Vec<_> = st.outs.iter().map(|o| o.ty).collect();
                let e = by.entry(st.op.name().to_string()).or_default();
                e.0 += d.as_secs_f64();
                e.1 += st.op.flops(&ins, &outs);
            }
        };
        s.replay(&mut program, Some(&mut hook));
        println!(
            "step {:.3} s = {:.2} images/s, loss {:?}",
            t.elapsed().as_secs_f64(),
            n as f64 / t.elapsed().as_secs_f64(),
            s.get(&program, "loss").unwrap()
        );
    }
    let mut v: Vec<_> = by.into_iter().collect();
    v.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (k, (t, f)) in v {
        println!("{k:24} {:8.1} ms {:8.1} GFLOP/s", t * 1e3, f as f64 / t / 1e9);
    }
}
