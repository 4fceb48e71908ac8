//! Calls servers as it is told to, line by line, and says what it sees: `call-out`.
//!
//! `tcp N ADDRESS` connects socket N, `udp N ADDRESS` binds one, `connect N ADDRESS` connects a bound one: the answer is
//! the peer. `say N TEXT` sends on a connected socket, `send N ADDRESS TEXT` on one that is not: the answer is what came
//! back, and from where. What fails is answered by `error NUMBER`.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Sockets {
    tcp: HashMap<String, TcpStream>,
    udp: HashMap<String, UdpSocket>,
}

fn main() -> io::Result<()> {
    let mut sockets = Sockets::default();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match sockets.obey(&words) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("error {}", error.raw_os_error().unwrap_or(0)),
        }
    }
    Ok(())
}

impl Sockets {
    fn obey(&mut self, words: &[&str]) -> io::Result<String> {
        match *words {
            ["tcp", name, address] => {
                let stream = TcpStream::connect(parse(address)?)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let peer = stream.peer_addr()?;
                self.tcp.insert(name.to_owned(), stream);
                Ok(peer.to_string())
            }
            ["udp", name, address] => {
                let socket = UdpSocket::bind(parse(address)?)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                self.udp.insert(name.to_owned(), socket);
                Ok("bound".to_owned())
            }
            ["connect", name, address] => {
                let socket = self.bound(name)?;
                socket.connect(parse(address)?)?;
                Ok(socket.peer_addr()?.to_string())
            }
            ["say", name, text] => {
                let Some(stream) = self.tcp.get_mut(name) else {
                    let socket = self.bound(name)?;
                    socket.send(text.as_bytes())?;
                    return heard(socket);
                };
                stream.write_all(text.as_bytes())?;
                let mut room = [0; 256];
                let length = stream.read(&mut room)?;
                Ok(format!("{} from {}", String::from_utf8_lossy(&room[..length]), stream.peer_addr()?))
            }
            ["send", name, address, text] => {
                let socket = self.bound(name)?;
                socket.send_to(text.as_bytes(), parse(address)?)?;
                heard(socket)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn bound(&self, name: &str) -> io::Result<&UdpSocket> {
        self.udp.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(io::Error::other)
}

fn heard(socket: &UdpSocket) -> io::Result<String> {
    let mut room = [0; 256];
    let (length, from) = socket.recv_from(&mut room)?;
    Ok(format!("{} from {from}", String::from_utf8_lossy(&room[..length])))
}
