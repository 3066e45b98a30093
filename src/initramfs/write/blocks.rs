//! Compresses independent blocks with several threads and writes them in order.
//!
//! Blocks have a fixed size, so that the result does not depend on the number of threads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A block on its way to a worker.
pub(crate) struct Job {
    number: u64,
    /// The end of the block before, for compressors that can refer to it.
    pub(crate) before: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// No block follows.
    pub(crate) last: bool,
}

/// A compressed block, and what else the worker found out.
type Done<T> = io::Result<(Vec<u8>, T)>;

/// Collects blocks, hands them to workers, writes what they return.
pub(crate) struct Blocks<W, T> {
    out: W,
    block: Vec<u8>,
    block_bytes: usize,
    before_bytes: usize,
    before: Vec<u8>,
    jobs: Option<Sender<Job>>,
    done: Receiver<(u64, Done<T>)>,
    waiting: BTreeMap<u64, (Vec<u8>, T)>,
    sent: u64,
    written: u64,
    in_flight_max: u64,
    /// The sink has failed. What was on its way is lost: nobody may wait for it.
    failed: bool,
    workers: Vec<JoinHandle<()>>,
    /// Called for each block in order, before it is written.
    each: Box<dyn FnMut(&T) + Send>,
}

impl<W: Write, T: Send + 'static> Blocks<W, T> {
    /// `work` compresses one block; `each` sees what else it returned, in order.
    pub(crate) fn new(
        out: W,
        block_bytes: usize,
        before_bytes: usize,
        threads: usize,
        work: impl Fn(&Job) -> Done<T> + Send + Sync + 'static,
        each: impl FnMut(&T) + Send + 'static,
    ) -> Blocks<W, T> {
        let (jobs, queue) = channel::<Job>();
        let (results, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let work = Arc::new(work);
        let workers = (0..threads)
            .map(|_| {
                let (queue, results, work) = (queue.clone(), results.clone(), work.clone());
                std::thread::spawn(move || {
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        if results.send((job.number, work(&job))).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        Blocks {
            out,
            block: Vec::with_capacity(block_bytes),
            block_bytes,
            before_bytes,
            before: Vec::new(),
            jobs: Some(jobs),
            done,
            waiting: BTreeMap::new(),
            sent: 0,
            written: 0,
            in_flight_max: threads as u64 + 1,
            failed: false,
            workers,
            each: Box::new(each),
        }
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        while self.sent - self.written >= self.in_flight_max {
            self.receive()?;
        }
        let data = std::mem::replace(&mut self.block, Vec::with_capacity(self.block_bytes));
        let tail = data[data.len().saturating_sub(self.before_bytes)..].to_vec();
        let before = std::mem::replace(&mut self.before, tail);
        let job = Job { number: self.sent, before, data, last };
        self.sent += 1;
        let gone = || io::Error::other("a compressing thread ended");
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }

    /// Waits for one block and writes all that are due. After an error there is only that.
    fn receive(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier part could not be written"));
        }
        let received = self.receive_one();
        self.failed = received.is_err();
        received
    }

    fn receive_one(&mut self) -> io::Result<()> {
        let (number, result) =
            self.done.recv().map_err(|_| io::Error::other("a compressing thread ended"))?;
        self.waiting.insert(number, result?);
        while let Some((bytes, extra)) = self.waiting.remove(&self.written) {
            (self.each)(&extra);
            self.out.write_all(&bytes)?;
            self.written += 1;
        }
        Ok(())
    }

    /// Compresses what is left (an empty block, if need be, so that there is a last one) and gives
    /// the sink back.
    pub(crate) fn finish(mut self, empty_last: bool) -> io::Result<W> {
        if !self.block.is_empty() || empty_last {
            self.send(true)?;
        }
        self.jobs = None;
        while self.written < self.sent {
            self.receive()?;
        }
        for worker in self.workers.drain(..) {
            // All its results are here.
            let _ = worker.join();
        }
        Ok(self.out)
    }
}

impl<W: Write, T: Send + 'static> Write for Blocks<W, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.block.len() == self.block_bytes {
            self.send(false)?;
        }
        let count = buf.len().min(self.block_bytes - self.block.len());
        self.block.extend_from_slice(&buf[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
