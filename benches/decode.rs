//! Frames per second of decoding alone, and of decoding and assembling, on one core.
//!
//! The frames are slices of 64 KiB buffers, as a socket reader hands them over. What is made is freed within the
//! measured time.

// A benchmark may stop at the first surprise, and its group has no words of its own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use repcloud::capture::assemble::{AssembleOptions, Assembler};
use repcloud::decode::pgoutput::Decoder;
use repcloud::model::Lsn;

const TABLE: u32 = 16_384;
/// numeric, timestamptz, text and jsonb among them; the first is the key.
const COLUMNS: [(&str, u32); 8] = [
    ("id", 20),
    ("amount", 1700),
    ("created_at", 1184),
    ("name", 25),
    ("details", 3802),
    ("status", 21),
    ("updated_at", 1184),
    ("note", 25),
];
/// Rows of an average application's transaction.
const ROWS: usize = 100;
const TRANSACTIONS: usize = 50;

/// Puts frames into buffers as large as a socket reader's.
#[derive(Default)]
struct Frames {
    buffer: BytesMut,
    frames: Vec<Bytes>,
}

impl Frames {
    fn add(&mut self, frame: &[u8]) {
        const BUFFER: usize = 64 * 1024;
        if self.buffer.capacity() < frame.len() {
            self.buffer = BytesMut::with_capacity(BUFFER);
        }
        self.buffer.put_slice(frame);
        self.frames.push(self.buffer.split().freeze());
    }
}

fn relation() -> Vec<u8> {
    let mut out = vec![b'R'];
    out.put_u32(TABLE);
    out.put_slice(b"public\0orders\0d");
    out.put_u16(COLUMNS.len() as u16);
    for (index, (name, oid)) in COLUMNS.into_iter().enumerate() {
        out.put_u8(u8::from(index == 0));
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_u32(oid);
        out.put_i32(-1);
    }
    out
}

fn row(out: &mut Vec<u8>, marker: u8, id: usize, key_only: bool) {
    out.put_u8(marker);
    out.put_u16(COLUMNS.len() as u16);
    let values = [
        format!("{}", 1_000_000 + id),
        format!("{}.{:02}", id * 37 % 100_000, id % 100),
        format!("2024-02-29 12:{:02}:{:02}.123456+00", id % 60, id * 7 % 60),
        format!("customer number {id}"),
        format!("{{\"items\": [{id}, {}], \"paid\": true}}", id + 1),
        "3".to_owned(),
        "2024-03-01 00:00:00+00".to_owned(),
    ];
    for value in values.iter().take(if key_only { 1 } else { values.len() }) {
        out.put_u8(b't');
        out.put_u32(value.len() as u32);
        out.put_slice(value.as_bytes());
    }
    let nulls = COLUMNS.len() - if key_only { 1 } else { values.len() };
    out.put_bytes(b'n', nulls);
}

fn change(kind: u8, id: usize) -> Vec<u8> {
    let mut out = vec![kind];
    out.put_u32(TABLE);
    match kind {
        b'D' => row(&mut out, b'K', id, true),
        _ => row(&mut out, b'N', id, false),
    }
    out
}

/// Transactions whose changes are the kinds of `kinds` in turn.
fn history(kinds: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::default();
    for transaction in 0..TRANSACTIONS {
        let commit = 1_000 + transaction as u64 * 1_000;
        let mut begin = vec![b'B'];
        begin.put_u64(commit);
        begin.put_i64(0);
        begin.put_u32(transaction as u32);
        frames.add(&begin);
        if transaction == 0 {
            frames.add(&relation());
        }
        for index in 0..ROWS {
            frames.add(&change(kinds[index % kinds.len()], transaction * ROWS + index));
        }
        let mut end = vec![b'C', 0];
        end.put_u64(commit);
        end.put_u64(commit + 40);
        end.put_i64(0);
        frames.add(&end);
    }
    frames.frames
}

fn decode(frames: Vec<Bytes>) {
    let mut decoder = Decoder::new(1);
    for frame in frames {
        black_box(decoder.decode(frame).unwrap());
    }
}

fn decode_and_assemble(frames: Vec<Bytes>) {
    let mut decoder = Decoder::new(1);
    let mut assembler =
        Assembler::new(AssembleOptions { skip_before: Lsn::INVALID, max_changes: 1_000, max_bytes: 8 << 20 });
    for frame in frames {
        assembler.push(decoder.decode(frame).unwrap()).unwrap();
        if assembler.is_full() {
            black_box(assembler.take());
        }
    }
    black_box(assembler.take());
}

fn benches(criterion: &mut Criterion) {
    for (name, kinds) in [("insert", &b"I"[..]), ("delete", b"D"), ("mixed", b"IUUD")] {
        let frames = history(kinds);
        let mut group = criterion.benchmark_group(format!("pgoutput/{name}"));
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function("decode", |bencher| {
            bencher.iter_batched(|| frames.clone(), decode, BatchSize::LargeInput);
        });
        group.bench_function("decode_and_assemble", |bencher| {
            bencher.iter_batched(|| frames.clone(), decode_and_assemble, BatchSize::LargeInput);
        });
        group.finish();
    }
}

criterion_group!(decoding, benches);
criterion_main!(decoding);
