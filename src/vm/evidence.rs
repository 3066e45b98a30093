//! What can be had of a guest before its QEMU is ended: registers, stacks, what everybody did.
//!
//! All of it within [`LIMIT`], whatever hangs: each step has what is left of it, and what did not answer
//! once is not asked again. Keys go over the UART first, as an interrupt, which needs nothing of the
//! guest's programs and shows what the processors did; the agent presses them where that is of no use.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host_load::HostLoad;
use super::scene::{Scene, Stage};
use crate::host::Moment;

/// How long it takes at most.
pub(super) const LIMIT: Duration = Duration::from_millis(2800);

/// How long the agent and QEMU's monitor may take to show that they live.
const SIGN_OF_LIFE: Duration = Duration::from_millis(600);

/// How long a kernel may take to begin to answer a key.
const BEGIN: Duration = Duration::from_millis(400);

/// A kernel that is silent for this long has answered.
const SILENCE: Duration = Duration::from_millis(60);

/// How long a break and its key are apart.
const BREAK: Duration = Duration::from_millis(20);

/// All messages to the console; processors, tasks that wait, all tasks, memory, locks.
const KEYS: &str = "9lwtmd";

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the run was about.
    pub stage: Stage,
    /// Whether the agent answered; `None` where there was none yet.
    pub agent_answers: Option<bool>,
    /// The command that ran: its name and process id.
    pub command: Option<(String, u32)>,
    /// What the kernel said when it was asked, as it came over the console.
    pub stacks: Vec<u8>,
    /// How many bytes the console had said before it was asked.
    pub console_bytes: usize,
    /// QEMU's `info registers -a`.
    pub registers: String,
    /// What QEMU got of the host's processors in the whole run.
    pub load: HostLoad,
    /// What the host was like then.
    pub host: Moment,
    /// What could not be had, and why.
    pub missing: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Collects what there is.
pub(super) async fn collect(scene: &Scene) -> Evidence {
    let begun = Instant::now();
    // What the kernel prints now was asked for.
    scene.console.no_more_splats();
    let mut evidence = Evidence {
        stage: scene.stage(),
        command: scene.command(),
        load: scene.host.so_far(),
        host: Moment::now(),
        console_bytes: scene.console.len(),
        ..Evidence::default()
    };
    if scene.is_stopped() {
        evidence.missing.push("QEMU's process is stopped, by a signal or a debugger".into());
        return evidence;
    }
    // The parts are written as they come, so that what is there when time is up is kept.
    let collecting = tokio::time::timeout(LIMIT, steps(scene, &mut evidence));
    if collecting.await.is_err() {
        evidence.missing.push("time was up before all was there".into());
    }
    evidence.took = begun.elapsed();
    evidence
}

async fn steps(scene: &Scene, evidence: &mut Evidence) {
    let monitor = scene.monitor.execute_within(SIGN_OF_LIFE, "query-status", Value::Null);
    let agent = async {
        match scene.probe() {
            Some(probe) => Some(probe.answers(SIGN_OF_LIFE).await),
            None => None,
        }
    };
    let (status, agent_answers) = tokio::join!(monitor, agent);
    evidence.agent_answers = agent_answers;
    let from = scene.console.len();
    match &status {
        Ok(_) => {
            let arguments = json!({ "command-line": "info registers -a" });
            let registers = scene.monitor.execute("human-monitor-command", arguments).await;
            let text = registers.ok().and_then(|text| text.as_str().map(str::to_owned));
            // Lines end as on a terminal.
            evidence.registers = text.unwrap_or_default().replace('\r', "");
            press_on_console(scene, evidence, from).await;
        }
        Err(error) => evidence.missing.push(error.to_string()),
    }
    if evidence.stacks.is_empty() && agent_answers == Some(true) {
        for key in KEYS.chars() {
            let pressed = match scene.probe() {
                Some(probe) => probe.press(&key.to_string(), SIGN_OF_LIFE).await,
                None => false,
            };
            if !pressed {
                break;
            }
            answer(scene, scene.console.len()).await;
            evidence.stacks = scene.console.since(from);
        }
    }
    if evidence.stacks.is_empty() {
        evidence.missing.push(
            "stacks: the kernel does not answer its keys (no CONFIG_MAGIC_SYSRQ, no console yet, or its \
             interrupts are off)"
                .into(),
        );
        if scene.arch.is_x86() && status.is_ok() {
            // It proves whether the processor takes anything at all.
            let _ = scene.monitor.execute("inject-nmi", Value::Null).await;
            answer(scene, from).await;
            evidence.stacks = scene.console.since(from);
        }
    }
}

/// Presses the keys on the UART: a break, then the key.
async fn press_on_console(scene: &Scene, evidence: &mut Evidence, from: usize) {
    let Some(chardev) = &scene.chardev else { return };
    for key in KEYS.bytes() {
        let before = scene.console.len();
        let arguments = json!({ "id": chardev });
        if scene.monitor.execute("chardev-send-break", arguments).await.is_err() {
            return;
        }
        tokio::time::sleep(BREAK).await;
        scene.console.send([key]);
        if !answer(scene, before).await {
            return;
        }
        evidence.stacks = scene.console.since(from);
    }
}

/// Waits for a kernel's answer to its end. False when none begins.
async fn answer(scene: &Scene, before: usize) -> bool {
    let begun = Instant::now();
    let mut seen = scene.console.len();
    while seen == before {
        if begun.elapsed() > BEGIN {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen = scene.console.len();
    }
    loop {
        tokio::time::sleep(SILENCE).await;
        let now = scene.console.len();
        if now == seen {
            return true;
        }
        seen = now;
    }
}
