//! The same of a file, by io_uring.
#![expect(unsafe_code, reason = "buffers that the kernel fills")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Instant;

use io_uring::{IoUring, opcode, types};

use super::course::{Course, Kind, Load, Next};
use super::{BLOCK, Done, Result, in_threads};

/// Runs `load` on as many rings, of a file.
pub(crate) fn run(path: &str, queues: usize, mut load: Load) -> Result<Done> {
    let file = File::options().read(true).write(true).open(path)?;
    load.blocks = file.metadata()?.len() / BLOCK as u64;
    in_threads((0..queues).collect(), |index| queue(&file, load, Course::new(load, index)))
}

fn queue(file: &File, load: Load, mut course: Course) -> Result<u64> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .build(u32::try_from(load.depth)?.next_power_of_two())?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let mut memory = vec![0_u8; load.depth * BLOCK];
    let mut free: Vec<usize> = (0..load.depth).collect();
    let end = Instant::now() + load.time;
    loop {
        if Instant::now() < end {
            let in_flight = load.depth - free.len();
            for slot in free.drain(..) {
                let (buffer, len) = (memory[slot * BLOCK..].as_mut_ptr(), BLOCK as u32);
                let Some(Next::Block(block)) = course.next(in_flight) else {
                    return Err("a file is read and written at random".into());
                };
                let offset = block * BLOCK as u64;
                let entry = match load.kind {
                    Kind::Read => opcode::Read::new(types::Fixed(0), buffer, len).offset(offset).build(),
                    _ => opcode::Write::new(types::Fixed(0), buffer, len).offset(offset).build(),
                };
                // SAFETY: the block lives until all requests are over, and nobody looks at it.
                unsafe { ring.submission().push(&entry.user_data(slot as u64)) }?;
            }
        } else if free.len() == load.depth {
            return Ok(course.blocks);
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            if completion.result() != BLOCK as i32 {
                return Err(format!("a request failed: {}", completion.result()).into());
            }
            free.push(usize::try_from(completion.user_data())?);
        }
    }
}
