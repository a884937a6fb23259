//! Everyday commands behave under the default profile as they do on the host: no false blocks.

use cofferdam_tests::Home;
use std::process::Command;

/// Each is run by `sh` in an empty directory, on the host and in a sandbox; output and status must be the same.
const COMMANDS: &[&str] = &[
    "printf 'int main(void){return 42;}' > a.c && gcc a.c -o a && ./a; echo $?",
    "printf '#include <stdio.h>\\n#include <pthread.h>\\nstatic void *f(void *x){return x;}int main(void){pthread_t t[8];for(int i=0;i<8;i++)pthread_create(t+i,0,f,0);for(int i=0;i<8;i++)pthread_join(t[i],0);puts(\"joined\");}' > t.c && gcc -pthread t.c -o t && ./t",
    "printf 'all: x y\\nx y:\\n\\ttouch $@\\n' > Makefile && make -s -j4 && ls",
    "printf 'int f(void){return 1;}' > l.c && gcc -shared -fPIC l.c -o libl.so && nm -D libl.so | grep -c ' T f'",
    "printf 'int f(void){return 1;}' > l.c && gcc -c l.c && ar rcs l.a l.o && ar t l.a",
    "git init -q . && git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m one && git log --format=%s",
    "git init -q . && echo x > f && git add f && git -c user.name=a -c user.email=a@b.c commit -q -m one && git stash list | wc -l && git grep x",
    "git init -q a && git -C a -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m one && git clone -q a b && git -C b rev-list --count HEAD",
    "python3 -c 'print(sum(range(10)))'",
    "python3 -c 'import threading; t=[threading.Thread(target=print, args=(i,)) for i in range(1)]; [x.start() for x in t]; [x.join() for x in t]'",
    "python3 -c 'import multiprocessing as m; print(m.get_context(\"fork\").Pool(2).map(abs, [-1, -2]))'",
    "python3 -c 'import subprocess; print(subprocess.run([\"echo\", \"hi\"], capture_output=True, text=True).stdout)'",
    "python3 -c 'import asyncio; print(asyncio.run(asyncio.sleep(0.01, 5)))'",
    "python3 -c 'import sqlite3; c=sqlite3.connect(\"x.db\"); c.execute(\"create table t(a)\"); c.execute(\"insert into t values(3)\"); c.commit(); print(c.execute(\"select a from t\").fetchall())'",
    "python3 -c 'import tempfile, os; f=tempfile.NamedTemporaryFile(); print(os.path.exists(f.name))'",
    "python3 -c 'import socket; s=socket.create_server((\"127.0.0.1\", 0)); c=socket.create_connection(s.getsockname()); c.send(b\"x\"); print(s.accept()[0].recv(1))'",
    "python3 -c 'import mmap; m=mmap.mmap(-1, 4096); m[0:2]=b\"ok\"; print(m[0:2])'",
    "python3 -c 'import ctypes; print(ctypes.CDLL(None).abs(-7))'",
    "python3 -c 'import signal, os; signal.signal(signal.SIGUSR1, lambda *a: print(\"got\")); os.kill(os.getpid(), signal.SIGUSR1)'",
    "python3 -c 'import resource; print(resource.getrlimit(resource.RLIMIT_STACK)[0] > 0)'",
    "python3 -c 'import hashlib; print(hashlib.sha256(b\"x\").hexdigest())'",
    "python3 -c 'import select; e=select.epoll(); print(e.poll(0))'",
    "python3 -c 'import fcntl; f=open(\"l\",\"w\"); fcntl.flock(f, fcntl.LOCK_EX); print(\"locked\")'",
    "python3 -c 'import os; os.mkfifo(\"p\"); print(oct(os.stat(\"p\").st_mode))'",
    "python3 -c 'import os; r,w=os.pipe(); os.write(w,b\"a\"); print(os.read(r,1))'",
    "python3 -c 'import os; os.setxattr(\".\", \"user.a\", b\"1\"); print(os.getxattr(\".\", \"user.a\"))'",
    "python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'",
    "python3 -m json.tool --compact <<< '{}' 2>/dev/null || echo '{\"a\": 1}' | python3 -m json.tool",
    "printf 'import unittest\\nclass T(unittest.TestCase):\\n  def test(self): self.assertTrue(True)\\n' > test_a.py && python3 -m unittest 2>&1 | grep -c OK",
    "perl -e 'print join(\",\", map { $_ * 2 } 1..3), \"\\n\"'",
    "perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite A, \"x\"; sysread B, $b, 1; print \"$b\\n\"'",
    "node -e 'console.log([1,2,3].map(x => x * 2).join())'",
    "node -e 'require(\"fs\").promises.writeFile(\"f\", \"x\").then(() => console.log(require(\"fs\").readFileSync(\"f\", \"utf8\")))'",
    "node -e 'const {Worker} = require(\"worker_threads\"); new Worker(\"require(\\\"worker_threads\\\").parentPort.postMessage(1)\", {eval: true}).on(\"message\", console.log)'",
    "node -e 'const h=require(\"http\").createServer((q,s)=>s.end(\"hi\")).listen(0,\"127.0.0.1\",()=>require(\"http\").get(h.address(),r=>r.on(\"data\",d=>{console.log(String(d));h.close()})))'",
    "mkdir d && echo x > d/f && tar cf a.tar d && rm -r d && tar xf a.tar && cat d/f",
    "mkdir d && echo x > d/f && tar czf a.tgz d && tar tzf a.tgz",
    "echo hello > f && gzip -k f && gunzip -c f.gz && xz -k f && xz -dc f.xz && bzip2 -k f 2>/dev/null; ls f f.gz f.xz",
    "sqlite3 x.db 'create table t(a); insert into t values(1),(2); select sum(a) from t;'",
    "sqlite3 x.db 'pragma journal_mode=wal; create table t(a); insert into t values(7); select a from t;'",
    "printf 'int main(void){return 3;}' > a.c && gcc -g a.c -o a && gdb -q -batch -ex 'break main' -ex run -ex 'print 1+1' -ex continue ./a 2>/dev/null | grep -c '= 2'",
    "printf '#include <unistd.h>\\nint main(void){write(1,\"x\\\\n\",2);return 0;}' > a.c && gcc a.c -o a && strace -e trace=write -o trace ./a && grep -c 'write(1' trace",
    "seq 1 1000 | sort -rn | head -n 3",
    "seq 1 100000 | sort -R --random-source=/dev/zero | wc -l",
    "printf 'b\\na\\n' | sort | uniq -c | tr -s ' '",
    "echo abc | sed 's/b/x/' && echo 'a b' | awk '{print $2}'",
    "find /usr/bin -name 'env' | head -n 1",
    "printf 'a\\nb\\n' > f && printf 'a\\nc\\n' > g && diff f g; echo $?",
    "dd if=/dev/zero of=f bs=1k count=10 2>/dev/null && stat -c %s f",
    "truncate -s 1M f && du -k --apparent-size f",
    "ln f g 2>/dev/null; touch f && ln f g && ln -s f h && stat -c %h f && readlink h",
    "touch f && chmod 751 f && stat -c %a f && umask",
    "(sleep 0.1; echo late) & echo early; wait",
    "timeout 0.2 sleep 10; echo $?",
    "nice -n 5 sh -c 'echo nice' && nohup sh -c 'echo hup' 2>/dev/null",
    "flock l sh -c 'echo locked'",
    "setsid sh -c 'echo session' && env -i /bin/sh -c 'echo clean'",
    "echo x | tee f g >/dev/null && cat f g && yes | head -n 2",
    "xargs -P 4 -n 1 echo < /dev/null; seq 4 | xargs -P 1 -n 2 echo",
    "tmux -S s -f /dev/null new-session -d 'echo in-tmux > out; sleep 0.1'; sleep 0.5; cat out",
    "mktemp -d -p . >/dev/null && ls -d tmp.* | wc -l",
    "date -u -d @0 +%Y && TZ=Europe/Berlin date -d @0 +%H",
    "locale 2>/dev/null | grep -c LANG= ; printf '\\303\\244' | iconv -f utf8 -t latin1 | od -An -tx1",
    "test -c /dev/null && test -d /dev/shm && echo x > /dev/shm/f && cat /dev/shm/f",
    "ulimit -c; cat /proc/self/comm; grep -c processor /proc/cpuinfo",
    "sh -c 'trap \"echo trapped\" EXIT'; bash -c 'echo <(true) | grep -c /dev/fd'",
    "openssl version >/dev/null && echo x | openssl dgst -sha256 && openssl rand -hex 4 | wc -c",
    "getent hosts localhost | wc -l; getent passwd root | cut -d: -f3",
    "install -D /bin/true deep/er/true && deep/er/true && file -b --mime-type deep/er/true",
    "printf 'print(1)' | python3 - && bash -c 'exec 3<>/dev/null; echo ok >&3; echo done'",
];

#[test]
pub fn they_behave_as_on_the_host() {
    assert!(COMMANDS.len() >= 60, "{} commands", COMMANDS.len());
    let home = Home::new();
    let mut different = Vec::new();
    for (index, script) in COMMANDS.iter().enumerate() {
        let directory = home.path(&format!("host-{index}"));
        std::fs::create_dir(&directory).expect("made");
        let mut host = Command::new("/bin/sh");
        host.args(["-c", script]).current_dir(&directory).env_clear().env("HOME", &directory);
        host.envs([("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")]);
        let host = cofferdam_tests::ended(&mut host);
        let inside = home.run(&["run", "-q", "--", "/bin/sh", "-c", script]);
        if host.code != inside.code || host.out != inside.out {
            different.push(format!(
                "{script}\n  host:    {} {:?}\n  sandbox: {} {:?} {:?}",
                host.code, host.out, inside.code, inside.out, inside.err
            ));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), COMMANDS.len(), different.join("\n"));
}

/// Hardened hosts give users a mask that keeps everybody else out; what a sandbox is made of is read by another user.
#[test]
pub fn nobodys_umask_counts_inside() {
    let home = Home::new();
    let script =
        "umask; stat -c '%n %a' / /etc /workspace /tmp /sys /sys/devices /dev /dev/shm /volume; touch x /tmp/x; stat -c '%n %a' x /tmp/x";
    home.ok(&["volume", "create", "usual"]);
    let usual = home.ok(&["run", "-q", "-v", "usual:/volume", "--", "sh", "-c", script]);
    assert_eq!(masked(&home, &["volume", "create", "masked"]).code, 0);
    let ran = masked(&home, &["run", "-q", "-v", "masked:/volume", "--", "sh", "-c", script]);
    assert_eq!((ran.code, ran.out), (0, usual), "{}", ran.err);
}

#[test]
fn nobodys_umask_counts_in_an_image() {
    let home = Home::new();
    home.ok(&["run", "--", "true"]);
    let base = std::fs::read_dir(home.data().join("images/host")).expect("there").next().expect("one").expect("read").path();
    let place = home.path("image");
    std::fs::create_dir_all(place.join("below")).expect("made");
    std::fs::write(place.join("below/file"), "read\n").expect("written");
    std::fs::write(place.join("Dockerfile"), "FROM base:1\nCOPY below /opt/below\nWORKDIR /made/here\n").expect("written");
    for words in [
        &["image", "import", &base.display().to_string(), "base:1"][..],
        &["image", "build", "-q", "-t", "app:1", &place.display().to_string()],
    ] {
        let made = masked(&home, words);
        assert_eq!(made.code, 0, "{made:?}");
    }
    let parts = ["bin", "lib", "lib64"].map(|part| format!("/usr/{part}:/usr/{part}:ro"));
    let words = ["run", "-q", "--image", "app:1", "-v", &parts[0], "-v", &parts[1], "-v", &parts[2], "--", "sh", "-c"];
    assert_eq!(home.ok(&[&words[..], &["cat /opt/below/file; pwd; stat -c %a . /made"]].concat()), "read\n/made/here\n755\n755\n");
}

fn masked(home: &Home, words: &[&str]) -> cofferdam_tests::Ended {
    let command = home.command(words);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    cofferdam_tests::ended(shell.stdin(std::process::Stdio::null()))
}
