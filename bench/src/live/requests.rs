//! Connections that carry one request and one response, one after another.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use weir_integration::Veth;

const REQUEST: [u8; 64] = [0x5a; 64];
const RESPONSE: [u8; 128] = [0xa5; 128];

/// Runs them for some seconds. Returns operations, seconds, and no CPU time beside that of this process.
pub(super) fn run(veth: &Veth, seconds: u64) -> anyhow::Result<(f64, f64, f64)> {
    let listener = veth.right.namespace.run(|| TcpListener::bind((veth.right.ipv4, 0)))?;
    let address = listener.local_addr()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, &is_over));
        let outcome = veth.left.namespace.run(|| -> anyhow::Result<(u32, Duration)> {
            let start = Instant::now();
            let mut operations = 0;
            while start.elapsed() < Duration::from_secs(seconds) {
                let mut stream = TcpStream::connect(address).context("cannot connect")?;
                reset_on_close(&stream)?;
                stream.write_all(&REQUEST)?;
                stream.read_exact(&mut [0; RESPONSE.len()])?;
                operations += 1;
            }
            let elapsed = start.elapsed();
            is_over.store(true, Relaxed);
            // Wakes the server.
            drop(TcpStream::connect(address));
            Ok((operations, elapsed))
        });
        server.join().expect("the server does not panic")?;
        let (operations, elapsed) = outcome?;
        Ok((f64::from(operations), elapsed.as_secs_f64(), 0.0))
    })
}

fn serve(listener: &TcpListener, is_over: &AtomicBool) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        if is_over.load(Relaxed) {
            return Ok(());
        }
        stream.read_exact(&mut [0; REQUEST.len()])?;
        stream.write_all(&RESPONSE)?;
        // The client resets, which some kernels report as an error and some as the end.
        drop(stream.read(&mut [0]));
    }
}

/// Without this the client runs out of ports, which stay taken for a minute after a proper end.
pub(crate) fn reset_on_close(stream: &TcpStream) -> anyhow::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>())?;
    // SAFETY: the option has this type and outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    };
    anyhow::ensure!(outcome == 0, std::io::Error::last_os_error());
    Ok(())
}
