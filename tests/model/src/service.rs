//! A training service as far as restores see it.

use serde_json::{Value, json};

/// How a service behaves where services differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A run that is asked for under the same (session, number) is found again, not made anew.
    pub deduplicates: bool,
    /// It makes a run from a checkpoint in one call.
    pub one_call: bool,
    /// Sessions can be looked for by their labels.
    pub search: bool,
    /// Checkpoints carry a probe.
    pub probe: bool,
    /// How it answers a training request whose number was used by the same request before.
    pub repeated: Repeated,
}

/// How a repeated training request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// As the first one was.
    AsBefore,
    /// With this status.
    Refused(u16),
}

/// A session, and the number of a run in it.
pub type Identity = (String, u64);

/// What a driver asks of it. Restores are named by labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// A session for a restore. Not idempotent.
    CreateSession(String),
    /// The sessions of a restore that are not over.
    Search(String),
    /// A run for a restore from a checkpoint, in one call.
    Load(Identity, String),
    /// A run for a restore, without the checkpoint.
    CreateModel(Identity, String),
    /// The checkpoint into such a run, as the request of this number.
    LoadInto(String, u64),
    /// The probe on a run, as the request of this number.
    Forward(String, u64),
    /// The end of a session.
    Finish(String),
}

/// What it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Sessions, named `s0`, `s1` and so on.
    pub sessions: Vec<Session>,
    /// Runs, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The restore that it was opened for, by its label.
    pub restore: String,
    /// It is over.
    pub finished: bool,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What it was asked for under.
    pub identity: Identity,
    /// The restore that asked for it, by its label.
    pub restore: String,
    /// It holds the checkpoint.
    pub loaded: bool,
    /// The number that its next training request has to have.
    pub expects: u64,
}

/// The result of a submission that was taken.
pub fn result_of(request_id: &str) -> Value {
    match request_id.split_once('/') {
        Some(("probe", _)) => json!({
            "loss_fn_output_type": "ArrayRecord",
            "loss_fn_outputs": [{"logprobs": {"data": LOGPROBS, "dtype": "float32"}}],
        }),
        Some((_, run)) => json!({"model_id": run}),
        None => panic!("nothing was submitted as {request_id}"),
    }
}

/// What every probe gives.
pub const LOGPROBS: [f32; 2] = [-1.5, -0.25];

type Reply = (u16, Value);

fn refuse(status: u16, detail: &str) -> Reply {
    (status, json!({"detail": detail}))
}

impl Service {
    /// Does what it is asked.
    pub fn answer(&mut self, call: &Call, rules: Rules) -> Reply {
        match call {
            Call::CreateSession(restore) => {
                self.sessions.push(Session { restore: restore.clone(), finished: false });
                (200, json!({"session_id": format!("s{}", self.sessions.len() - 1)}))
            }
            Call::Search(restore) => (200, json!({"sessions": self.open_sessions(restore)})),
            Call::Load(identity, restore) => self.make(identity, restore, true, rules),
            Call::CreateModel(identity, restore) => self.make(identity, restore, false, rules),
            Call::LoadInto(run, number) => self.train(run, *number, rules, |run| {
                run.loaded = true;
                format!("load/{}", run.id)
            }),
            Call::Forward(run, number) => self.train(run, *number, rules, |run| format!("probe/{}", run.id)),
            Call::Finish(session) => {
                if let Some(session) = self.session(session) {
                    session.finished = true;
                }
                (200, json!({}))
            }
        }
    }

    fn open_sessions(&self, restore: &str) -> Vec<Value> {
        let sessions = self.sessions.iter().enumerate();
        let open = sessions.filter(|(_, session)| session.restore == restore && !session.finished);
        open.map(|(number, _)| {
            json!({
                "session_id": format!("s{number}"), "created_at": "2026-01-01T00:00:00Z", "owner": "me",
                "project_id": "p", "checkpoints_count": 0, "user_metadata": {"retinker.restore_id": restore},
            })
        })
        .collect()
    }

    fn session(&mut self, id: &str) -> Option<&mut Session> {
        let number: usize = id.strip_prefix('s')?.parse().ok()?;
        self.sessions.get_mut(number)
    }

    fn make(&mut self, identity: &Identity, restore: &str, loaded: bool, rules: Rules) -> Reply {
        if self.session(&identity.0).is_none_or(|session| session.finished) {
            return refuse(410, "the session is over");
        }
        let known = self.runs.iter().find(|run| rules.deduplicates && run.identity == *identity);
        let id = match known {
            Some(run) => run.id.clone(),
            None => {
                let id = format!("run{}", self.runs.len());
                let (identity, restore) = (identity.clone(), restore.to_owned());
                self.runs.push(Run { id: id.clone(), identity, restore, loaded, expects: 1 });
                id
            }
        };
        (200, json!({"request_id": format!("made/{id}")}))
    }

    fn train(&mut self, id: &str, number: u64, rules: Rules, act: impl Fn(&mut Run) -> String) -> Reply {
        let Some(run) = self.runs.iter_mut().find(|run| run.id == id) else {
            return refuse(404, "there is no such run");
        };
        if number > run.expects {
            return refuse(409, "a number is missing");
        }
        if number < run.expects
            && let Repeated::Refused(status) = rules.repeated
        {
            return refuse(status, "the number was used before");
        }
        run.expects = run.expects.max(number + 1);
        (200, json!({"request_id": act(run)}))
    }

    /// Whether a session is there and not over.
    pub fn is_open(&self, session_id: &str) -> bool {
        let number = session_id.strip_prefix('s').and_then(|number| number.parse::<usize>().ok());
        number.and_then(|number| self.sessions.get(number)).is_some_and(|session| !session.finished)
    }

    /// A run by its id.
    pub fn run(&self, id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id)
    }
}
