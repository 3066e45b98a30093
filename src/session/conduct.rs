//! One conductor: takes a prepared machine to a finished run, for the command line and the library.

use std::ffi::OsString;
use std::fs::File;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use vmtest_guest::proto::{Exec, WindowSize};

use super::artifacts::Artifacts;
use super::events::EventFiles;
use super::explain::{Explained, Traces};
use super::image::{Planned, Remarks};
use super::symbols::Symbols;
use super::tail::Tail;
use super::warm::{self, Choice, RESUME_LIMIT};
use super::{Error, Prepared};
use crate::assets;
use crate::causes::chain;
use crate::coverage::record;
use crate::diagnosis::Gate;
use crate::initramfs::Hash;
use crate::plan::Spelling;
use crate::run_record::{self, Origin, RunRecord};
use crate::templates::Template;
use crate::vm::{
    self, Console, Guest, Job, Outcome, Progress, Resources, SaveRequest, Sink, Start, Streams,
    Verdict, Vm,
};

/// What a run is conducted with.
#[derive(Debug)]
pub struct Conduct {
    /// The command's.
    pub streams: Streams,
    /// The command runs on a terminal of this size, for a person: there is no limit in time.
    pub terminal: Option<WindowSize>,
    /// How the run is repeated, for its record.
    pub repeat: OsString,
}

impl Conduct {
    /// A run that nobody types at.
    pub fn new(streams: Streams) -> Conduct {
        Conduct { streams, terminal: None, repeat: OsString::new() }
    }
}

/// A run that has ended, with what only its caller can want.
pub(super) struct Conducted {
    pub(super) record: RunRecord,
    /// All that the console said.
    pub(super) console: Console,
    /// QEMU's command line as a person types it.
    pub(super) cmdline: OsString,
}

impl Prepared {
    /// Runs what was prepared: image, machine, command, coverage, event files, artifacts, record.
    ///
    /// `interrupt` ends the run when it completes, with the name of the signal. `observer` is told of each
    /// step.
    ///
    /// # Errors
    /// [`Error`] when nothing was started, or an artifact cannot be written.
    pub async fn conduct(
        self,
        conduct: Conduct,
        interrupt: impl Future<Output = &'static str>,
        observer: impl FnMut(Progress<'_>) + Send,
    ) -> Result<RunRecord, Error> {
        self.conduct_all(conduct, interrupt, observer).await.map(|conducted| conducted.record)
    }

    pub(super) async fn conduct_all(
        mut self,
        conduct: Conduct,
        interrupt: impl Future<Output = &'static str>,
        observer: impl FnMut(Progress<'_>) + Send,
    ) -> Result<Conducted, Error> {
        let mut interrupt = pin!(interrupt);
        let observer = Mutex::new(observer);
        let observe = |progress: Progress<'_>| {
            (observer.lock().unwrap_or_else(PoisonError::into_inner))(progress);
        };
        let tell = |text: &str| observe(Progress::Notice(text));
        let mut artifacts = Artifacts::create(self.artifacts.as_deref())?;
        let event_files = EventFiles::create(&self.event_files)?;
        if let Some(file) = artifacts.file("console", "console.log")? {
            self.resources.console_sinks.push(Box::new(file) as Sink);
        }
        let tails = [Tail::default(), Tail::default()];
        let streams = Streams {
            stdin: conduct.streams.stdin,
            stdout: tails[0].before(artifacts.tee("stdout", conduct.streams.stdout)?),
            stderr: tails[1].before(artifacts.tee("stderr", conduct.streams.stderr)?),
        };
        let boot_budget = self.boot_budget;
        let starting = || observe(Progress::Starting);
        let mut ready = self.get_ready(conduct.terminal, interrupt.as_mut(), &starting).await?;
        ready.notices.iter().for_each(|text| tell(text));

        let (faults, mut reported) = unbounded_channel();
        let collectors = event_files.collect(ready.vm_mut(), &faults);
        let console = ready.vm().console().clone();
        let version = ready.vm().qemu_version_watch();
        let cmdline = ready.vm().plan().quoted(Spelling::Typed);
        let plan = ready.vm().plan();
        let traces = Traces {
            console: console.clone(),
            tails,
            memory_bytes: plan.memory_bytes(),
            has_agent: plan.has_agent(),
            gate: std::mem::take(&mut ready.gate),
            symbols: ready.symbols.clone(),
            boot_budget,
        };
        let Ready { start, job, origin, record: facts, coverage, notices, .. } = ready;
        let mut outcome = {
            let running = vm::run(start, job, streams, interrupt, observe);
            while_reporting(running, &mut reported, &tell).await
        };
        outcome.notices.splice(0..0, notices);
        let failed = collectors.finish(outcome.verdict.passed(), &faults).await;
        while let Ok(text) = reported.try_recv() {
            tell(&text);
            outcome.notices.push(text);
        }
        if let (Some(error), true) = (failed, outcome.verdict.passed()) {
            outcome.verdict = Verdict::TaskFailed { error };
        }
        let Explained { splats, hang, reasons, console_tail } = traces.explain(&mut outcome, &tell);
        let coverage = coverage.map(|collecting| collecting.finish(&outcome));
        let (collected, lost) = coverage
            .transpose()
            .map_or_else(|error: record::Error| (None, Some(error)), |collected| (collected, None));
        let lost = lost.map(|error| (chain(&error), error.hint().to_owned()));
        let mut record = RunRecord {
            qemu_version: version.borrow().clone(),
            console_tail,
            splats,
            hang,
            reasons,
            coverage: collected,
            coverage_lost: lost,
            origin: Some(origin.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            repeat: conduct.repeat,
            outcome,
            ..facts
        };
        write_down(artifacts, &mut record)?;
        Ok(Conducted { record, console, cmdline })
    }

    /// Brings a machine to where a run takes it over: booting, or resumed.
    async fn get_ready(
        mut self,
        terminal: Option<WindowSize>,
        mut interrupt: std::pin::Pin<&mut impl Future<Output = &'static str>>,
        starting: &(dyn Fn() + Sync),
    ) -> Result<Ready, Error> {
        let mut choice = self.choose()?;
        // Whatever takes long and is not the guest's own time comes before there is a guest.
        let mut files = None;
        if let Choice::Resume(template) = &choice {
            files = Some(self.files_of_run()?);
            starting();
            let resumed = tokio::select! {
                resumed = resume(self.plan.clone(), self.run_limit, template) => resumed,
                signal = interrupt.as_mut() => return Err(Error::Interrupted { signal }),
            };
            match resumed {
                Ok(resumed) => {
                    let origin = Origin::Warm { template: template.key.to_string() };
                    let job = self.job_of(terminal, files.flatten(), None);
                    return self.take_over(job, origin, |_, resources| {
                        Ok(Start::from(resumed.with(resources)?))
                    });
                }
                Err(why) => choice = self.instead_of(template, &why)?,
            }
        }
        let mut save = None;
        let origin = match choice {
            Choice::Save { pending, made_of, reason } => {
                files.get_or_insert(self.files_of_run()?);
                self.plan = self.plan.clone().to_be_saved();
                let template = pending.key().to_string();
                let origin = Arc::new(Mutex::new(Origin::Saved { template, reason }));
                let request = warm::save_request(pending, made_of, &self.plan, origin.clone());
                save = Some(request.map_err(Error::Temporary)?);
                origin
            }
            Choice::Cold { reason } => Arc::new(Mutex::new(Origin::Cold { reason })),
            Choice::Resume(_) => unreachable!("it was resumed, or something else was chosen"),
        };
        if !self.preflight.is_required() {
            let remarks = self.preflight.check(&self.plan, self.image.is_some())?;
            self.notices.extend(remarks);
        }
        self.build(files.is_none())?;
        starting();
        let job = self.job_of(terminal, files.flatten(), save);
        self.take_over_with(job, origin, |plan, resources| {
            Ok(Start::from(Vm::start(plan, resources)?))
        })
    }

    /// The archive of the user's files, for a guest that has booted without them.
    pub(super) fn files_of_run(&mut self) -> Result<Option<File>, Error> {
        let files = match &mut self.image {
            Some(Planned::Build { files, .. }) => files.take(),
            _ => None,
        };
        let mut remarks =
            Remarks { notices: &mut self.notices, collecting: self.coverage.as_mut() };
        files.map_or(Ok(None), |files| files.archive(&mut remarks))
    }

    /// What is to be done in a guest that was booted from an image with everything in it
    /// ([`Prepared::start`]).
    pub fn job(&self) -> Job {
        self.job_of(None, None, None)
    }

    fn job_of(
        &self,
        terminal: Option<WindowSize>,
        files: Option<File>,
        save: Option<SaveRequest>,
    ) -> Job {
        let on_terminal = |exec: Exec| Exec { tty: terminal.or(exec.tty), ..exec };
        Job {
            exec: self.exec.clone().map(on_terminal),
            files,
            save,
            boot_limit: self.boot_limit,
            run_limit: terminal.is_none().then_some(self.run_limit),
            // Who sits before it sees for themselves.
            hang: self.hang_limit.filter(|_| terminal.is_none()),
        }
    }

    fn take_over(
        self,
        job: Job,
        origin: Origin,
        start: impl FnOnce(crate::plan::Plan, Resources) -> Result<Start, Error>,
    ) -> Result<Ready, Error> {
        self.take_over_with(job, Arc::new(Mutex::new(origin)), start)
    }

    fn take_over_with(
        mut self,
        job: Job,
        origin: Arc<Mutex<Origin>>,
        start: impl FnOnce(crate::plan::Plan, Resources) -> Result<Start, Error>,
    ) -> Result<Ready, Error> {
        if let Some(why) = self.coverage.as_ref().and_then(super::Collecting::no_kernel) {
            self.notices.push(format!("no coverage of the kernel: {why}"));
        }
        let record =
            run_record::facts(&self.plan, &self.accel, &self.kernel, self.initramfs.as_ref());
        let mut coverage = self.coverage;
        let start = start(self.plan, self.resources)?;
        // From now on the run's directory stays.
        coverage.iter_mut().for_each(super::Collecting::started);
        let (gate, symbols, notices) = (self.gate, self.symbols, self.notices);
        Ok(Ready { start, job, origin, record, coverage, notices, gate, symbols })
    }

    /// Boots or resumes a guest, puts the user's files into it and does what the plan says for every
    /// command. The command itself is not run.
    ///
    /// # Errors
    /// [`Error`] when nothing was started; [`Error::NotReady`] when the guest did not get ready.
    pub async fn boot(mut self) -> Result<Guest, Error> {
        self.exec = None;
        let boot_limit = self.boot_limit;
        let never = pin!(std::future::pending());
        let ready = self.get_ready(None, never, &|| ()).await?;
        let guest = match ready.start {
            Start::Ready(guest) => *guest,
            Start::Booting(vm) => {
                let ready = vm.ready(boot_limit).await;
                ready.map_err(|failed| Error::NotReady { why: failed.why })?
            }
        };
        if let Some(SaveRequest { memory, state, done }) = ready.job.save {
            let saved = guest.save(&memory, &state).await;
            drop((memory, state));
            done(guest.hello(), guest.vm().qemu_version(), saved);
        }
        if let Some(files) = ready.job.files {
            guest.put_files(files).await.map_err(not_ready)?;
        }
        guest.set_up().await.map_err(not_ready)?;
        Ok(guest)
    }
}

/// The guest answered, and something that each needs cannot be done in it.
pub(super) fn not_ready(why: vm::GuestError) -> Error {
    Error::NotReady { why }
}

async fn resume(
    plan: crate::plan::Plan,
    run_limit: std::time::Duration,
    template: &Template,
) -> Result<vm::Resumed, String> {
    let saved = warm::saved(template).map_err(|error| error.to_string())?;
    let resumed = Vm::resume(plan.to_be_resumed(), saved, RESUME_LIMIT.min(run_limit)).await;
    resumed.map_err(|error| chain(&error))
}

/// A machine that a run takes over.
struct Ready {
    start: Start,
    job: Job,
    origin: Arc<Mutex<Origin>>,
    /// What is known before it runs.
    record: RunRecord,
    coverage: Option<super::Collecting>,
    notices: Vec<String>,
    gate: Gate,
    symbols: Symbols,
}

impl Ready {
    fn vm(&self) -> &Vm {
        match &self.start {
            Start::Booting(vm) => vm,
            Start::Ready(guest) => guest.vm(),
        }
    }

    fn vm_mut(&mut self) -> &mut Vm {
        match &mut self.start {
            Start::Booting(vm) => vm,
            Start::Ready(guest) => guest.vm_mut(),
        }
    }
}

/// Waits for a run, and reports what goes wrong beside it when it does.
async fn while_reporting(
    running: impl Future<Output = Outcome>,
    reported: &mut UnboundedReceiver<String>,
    tell: &impl Fn(&str),
) -> Outcome {
    let mut running = pin!(running);
    let mut texts = Vec::new();
    let mut outcome = loop {
        tokio::select! {
            biased;
            Some(text) = reported.recv() => {
                tell(&text);
                texts.push(text);
            }
            outcome = &mut running => break outcome,
        }
    };
    outcome.notices.extend(texts);
    outcome
}

/// Writes the artifacts that are known at the end.
fn write_down(mut artifacts: Artifacts, record: &mut RunRecord) -> Result<(), Error> {
    if artifacts.wanted() {
        add_hashes(record);
    }
    if !record.splats.reports.is_empty() {
        artifacts.json("splats", "splats.json", &record.splats)?;
    }
    if let Some(hang) = &record.hang {
        for (what, name, text) in hang.files(&record.outcome.verdict) {
            artifacts.text(what, name, &text)?;
        }
    }
    artifacts.finish(record)
}

/// Hashes that take longer than anybody waits for without asking.
fn add_hashes(record: &mut RunRecord) {
    if let (None, Some(path)) = (&record.kernel.sha256, &record.kernel.path) {
        record.kernel.sha256 = assets::sha256(path).ok();
    }
    if let Some(image) = &mut record.initramfs
        && let (None, Some(path)) = (&image.blake3, &image.path)
    {
        let hash = File::open(path).and_then(Hash::of);
        image.blake3 = hash.ok().map(|hash| hash.to_string());
    }
}
