fn main() {
    let r = defrost::selftest::run(defrost::selftest::Target::Cpu, std::env::args().nth(1).as_deref(), &|_, _| {}).unwrap();
    println!("{} rows, {} passed, faults {}/{}; worst {:?}", r.rows, r.passed, r.faults_caught, r.faults_planted, r.worst);
    for f in r.failed.iter().take(40) {
        println!("{} | {} | {:.3} {:?}", f.case, f.check, f.share, f.fault);
    }
}
