//! One call of Redis: to the node that has the slot, again while the topology changes, and never for longer than a deadline.

use super::*;

/// What is sent to a node in one go.
enum Request {
    One(::redis::Cmd),
    /// With what waits for replicas.
    Both(::redis::Cmd, ::redis::Cmd),
}

fn unavailable(error: &RedisError) -> Error {
    metrics::failed();
    Error::Unavailable(error.to_string())
}

impl Inner {
    /// Runs a script on a conversation, wherever it lies by now.
    pub(super) async fn run(&self, script: Script, keys: &Keys, args: &[&[u8]]) -> Result<Value, Error> {
        let begun = Instant::now();
        let replicas = self.nodes.config().replicas;
        let waits = replicas > 0 && matches!(script, Script::Append | Script::AppendFast);
        let value = self
            .command(keys.slot, |link| {
                let loaded = script.loaded();
                let mut common = [0; 20];
                let mut rest = &mut common[..];
                rest.put_i64(self.nodes.shift.load(Ordering::Relaxed));
                rest.put_slice(&link.identity);
                rest.put_u32(rand::random());
                let mut command = ::redis::cmd("EVALSHA");
                command.arg(&loaded.sha).arg(keys.names.len());
                for name in &keys.names {
                    command.arg(name);
                }
                command.arg(&common[..]).arg(&keys.channel);
                for arg in args {
                    command.arg(*arg);
                }
                if waits {
                    let mut wait = ::redis::cmd("WAIT");
                    wait.arg(replicas).arg(1_000);
                    Request::Both(command, wait)
                } else {
                    Request::One(command)
                }
            })
            .await?;
        metrics::call(script.name(), begun.elapsed());
        if !waits {
            return Ok(value);
        }
        match value {
            Value::Array(mut values) if values.len() == 2 => match values.pop() {
                Some(Value::Int(got)) if got >= i64::from(replicas) => Ok(values.pop().unwrap_or(Value::Nil)),
                Some(Value::Int(got)) => {
                    metrics::failed();
                    let what = format!("{got} of {replicas} replicas have it; it stands on the primary");
                    Err(Error::Unavailable(what))
                }
                _ => Err(Nonsense("no count of replicas").into()),
            },
            _ => Err(Nonsense("no list of answers").into()),
        }
    }

    /// Sends commands to the node of a slot, again while it says that it is not the one, or not ready, or is gone: all
    /// calls can be repeated without harm.
    async fn command(&self, slot: u16, make: impl Fn(&Link) -> Request) -> Result<Value, Error> {
        let deadline = Instant::now() + self.nodes.config().call_deadline;
        let mut elsewhere: Option<Arc<Link>> = None;
        let mut last = None;
        loop {
            let asking = elsewhere.is_some();
            let Some(link) = elsewhere.take().or_else(|| self.nodes.link(slot)) else {
                let mut changes = self.nodes.changes();
                self.nodes.doubt();
                if timeout_at(deadline, changes.changed()).await.is_err() {
                    metrics::failed();
                    let why = last.unwrap_or_else(|| "no node has it".to_owned());
                    return Err(Error::Unavailable(why));
                }
                continue;
            };
            let request = make(&link);
            let mut connection = link.commands.clone();
            let sent = async {
                match request {
                    Request::One(command) if !asking => command.query_async::<Value>(&mut connection).await,
                    Request::One(command) => {
                        let mut pipe = ::redis::pipe();
                        pipe.cmd("ASKING").ignore().add_command(command);
                        pipe.query_async::<(Value,)>(&mut connection).await.map(|(value,)| value)
                    }
                    Request::Both(command, wait) => {
                        let mut pipe = ::redis::pipe();
                        if asking {
                            pipe.cmd("ASKING").ignore();
                        }
                        pipe.add_command(command).add_command(wait);
                        pipe.query_async::<Value>(&mut connection).await
                    }
                }
            };
            let error = match timeout_at(deadline, sent).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => {
                    metrics::failed();
                    self.nodes.doubt();
                    return Err(Error::Unavailable(format!(
                        "no answer within {:?}",
                        self.nodes.config().call_deadline
                    )));
                }
            };
            match error.code() {
                Some("NOSCRIPT") => {
                    metrics::repeated("noscript");
                    self.load_scripts(&link, deadline).await?;
                    continue;
                }
                Some("ASK") => {
                    metrics::repeated("ask");
                    elsewhere = error.redirect_node().and_then(|(address, _)| {
                        let (host, port) = address.rsplit_once(':')?;
                        self.nodes.link_to(&(host.to_owned(), port.parse().ok()?))
                    });
                    if elsewhere.is_none() {
                        self.nodes.doubt();
                    }
                }
                Some("MOVED") => {
                    metrics::repeated("moved");
                    self.nodes.doubt();
                }
                Some("READONLY" | "MASTERDOWN") => {
                    metrics::repeated("readonly");
                    self.nodes.broke(&link);
                }
                Some("TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "BUSY") => {
                    metrics::repeated("not_ready");
                    self.nodes.doubt();
                }
                Some("OOM") => {
                    return Err(Refusal::Full { what: "Redis has no memory left" }.into());
                }
                Some(_) => return Err(unavailable(&error)),
                None if error.is_timeout() => {
                    self.nodes.doubt();
                    return Err(unavailable(&error));
                }
                None => {
                    metrics::repeated("broken");
                    self.nodes.broke(&link);
                }
            }
            if Instant::now() + Duration::from_millis(20) >= deadline {
                return Err(unavailable(&error));
            }
            last = Some(error.to_string());
            if elsewhere.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn load_scripts(&self, link: &Link, deadline: Instant) -> Result<(), Error> {
        let mut pipe = ::redis::pipe();
        for script in Script::ALL {
            pipe.cmd("SCRIPT").arg("LOAD").arg(&script.loaded().source).ignore();
        }
        let mut connection = link.commands.clone();
        match timeout_at(deadline, pipe.query_async::<()>(&mut connection)).await {
            Ok(loaded) => loaded.map_err(|error| unavailable(&error)),
            Err(_) => Err(Error::Unavailable("scripts could not be loaded in time".to_owned())),
        }
    }

    /// One plain command on a key of its own.
    pub(super) async fn plain<T: ::redis::FromRedisValue>(&self, slot: u16, command: ::redis::Cmd) -> Result<T, Error> {
        let value = self.command(slot, |_| Request::One(command.clone())).await?;
        T::from_redis_value(value)
            .map_err(|_| Nonsense("a value of another kind; another program uses this database").into())
    }
}
