use cofferdam_engine::*;
use cofferdam_engine_native::NativeEngine;
use cofferdam_model::*;
use std::os::fd::AsFd;
fn main() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let data = std::path::Path::new("/tmp/cofd");
        std::fs::create_dir_all(data).unwrap();
        let eng = NativeEngine::new(InstallId::from_random([1; 16]), data).unwrap();
        let image = cofferdam_trust::resolve(&ImageRef::Host, data).unwrap();
        let user = image.user(None).unwrap();
        let args: Vec<String> = std::env::args().skip(1).collect();
        let n: u32 = std::env::var("N").map(|n| n.parse().unwrap()).unwrap_or(1);
        let mut times = vec![];
        for i in 0..n {
            let t = std::time::Instant::now();
            let dir = data.join("sb"); std::fs::create_dir_all(&dir).unwrap();
            let mut limits = Difficulty::Medium.limits(); limits.disk = std::env::var("DISK").ok().map(|d| d.parse().unwrap());
            let spec = SandboxSpec { id: SandboxId::from_random([i as u8; 16]), install: InstallId::from_random([1; 16]), directory: dir, hostname: "box".into(), image: image.clone(), limits, user: user.clone(), mounts: vec![], directories: vec![], files: vec![], unplugged: Default::default() };
            let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
            let sb = eng.create(spec, tx).await.unwrap();
            let t1 = t.elapsed();
            let p = ProcessSpec { command: args.iter().map(|a| a.clone().into_bytes()).collect(), environment: vec![format!("PATH={}", image.path_value()).into_bytes()], directory: "/workspace".into(), user: user.clone(), terminal: None };
            let o = std::io::stdout(); let e = std::io::stderr(); let si = std::io::stdin();
            let fds = [si.as_fd().try_clone_to_owned().unwrap(), o.as_fd().try_clone_to_owned().unwrap(), e.as_fd().try_clone_to_owned().unwrap()];
            let r = sb.start(p, Stdio::Fds(fds)).await;
            let t2 = t.elapsed();
            match r { Ok(mut p) => { let st = p.wait().await; if n == 1 { println!("{st:?}"); } } Err(e) => println!("ERR {e}") }
            let t3 = t.elapsed();
            let obs = sb.observe().await.unwrap();
            sb.delete().await.unwrap();
            times.push((t1, t2, t3, t.elapsed()));
            if n == 1 { println!("{obs:?} {:?}", rx.try_recv()); }
        }
        times.sort(); 
        println!("{:?}", times[times.len() / 2]);
    });
}
