//! A redo log in the browser's own storage. What stores is JavaScript's (IndexedDB, in the npm package); here is what is
//! stored, and in which order.
//!
//! A record is a frame behind its Adler-32 (32 bits, little endian). Records are written whole or not at all, so none is torn; what
//! is damaged all the same is an error that names the place, whose offset is the record's number in its segment.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use js_sys::{Array, Promise, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::redo::{Frame, LogError, Place, RedoLog};

#[wasm_bindgen]
extern "C" {
    /// What keeps the records of one log, for one program at a time.
    pub type LogRecords;

    /// The log's name.
    #[wasm_bindgen(method, getter)]
    fn name(this: &LogRecords) -> String;
    /// Lets go of the log, once what is being stored is there.
    #[wasm_bindgen(method)]
    fn close(this: &LogRecords);

    /// The records that there are, in order: for each its segment, its number in it, and its bytes.
    #[wasm_bindgen(method, catch)]
    fn list(this: &LogRecords) -> Result<Promise, JsValue>;
    /// Stores a record; done when it is there for good.
    #[wasm_bindgen(method, catch)]
    fn put(this: &LogRecords, segment: f64, number: f64, record: Uint8Array) -> Result<Promise, JsValue>;
    /// A record, or `undefined`.
    #[wasm_bindgen(method, catch)]
    fn get(this: &LogRecords, segment: f64, number: f64) -> Result<Promise, JsValue>;
    /// Drops the records of the segments before this one.
    #[wasm_bindgen(method, catch, js_name = dropBefore)]
    fn drop_before(this: &LogRecords, segment: f64) -> Result<Promise, JsValue>;
}

/// Records that are let go of when the last who uses them is gone: a driver goes on after its clients are.
struct Held(SendWrapper<LogRecords>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A redo log whose records JavaScript keeps.
#[derive(Clone)]
pub struct StoredLog {
    name: Arc<str>,
    records: Arc<Held>,
    segments: Arc<Mutex<Vec<Segment>>>,
}

struct Segment {
    number: u64,
    /// The number that its next record is given.
    next: u64,
    bytes: u64,
    records: Vec<u64>,
}

/// What stands before a frame.
const BEFORE: usize = 4;

impl fmt::Debug for StoredLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredLog")
            .field("name", &self.name)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl StoredLog {
    /// The log of these records, which are let go of with it.
    pub fn new(records: LogRecords) -> Self {
        Self {
            name: records.name().into(),
            records: Arc::new(Held(SendWrapper::new(records))),
            segments: Arc::default(),
        }
    }

    /// The same, knowing what is in it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if it cannot be read.
    pub async fn opened(self) -> Result<Self, LogError> {
        let log = self;
        let listed = log.asked(|records| records.list()).await?;
        for line in listed.unchecked_ref::<Array>().iter() {
            let number = |at: u32| line.unchecked_ref::<Array>().get(at).as_f64().map(|number| number as u64);
            let (Some(segment), Some(record), Some(bytes)) = (number(0), number(1), number(2)) else {
                return Err(log.unavailable("what it lists cannot be read".to_owned()));
            };
            let mut segments = log.segments();
            if segments.last().is_none_or(|last| last.number != segment) {
                segments.push(Segment { number: segment, next: 0, bytes: 0, records: Vec::new() });
            }
            if let Some(last) = segments.last_mut() {
                last.next = record + 1;
                last.bytes += bytes;
                last.records.push(record);
            }
        }
        Ok(log)
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, reason: String) -> LogError {
        LogError::Unavailable { log: self.name(), reason }
    }

    fn damaged(&self, place: Place, reason: &str) -> LogError {
        LogError::Damaged { log: self.name(), place, reason: reason.to_owned() }
    }

    /// Asks the records for something, at once; what they come to is waited for.
    fn asked(
        &self,
        ask: impl FnOnce(&LogRecords) -> Result<Promise, JsValue>,
    ) -> BoxFuture<'static, Result<SendWrapper<JsValue>, LogError>> {
        let asked = ask(&self.records.0);
        let log = self.clone();
        Box::pin(SendWrapper::new(async move {
            let answer = match asked {
                Ok(promise) => JsFuture::from(promise).await,
                Err(thrown) => Err(thrown),
            };
            answer.map(SendWrapper::new).map_err(|thrown| {
                let told = |member: &str| {
                    let told = js_sys::Reflect::get(&thrown, &member.into()).ok()?.as_string();
                    told.filter(|told| !told.is_empty())
                };
                let reason = told("message").or_else(|| told("name"));
                log.unavailable(reason.unwrap_or_else(|| "the browser does not say why".to_owned()))
            })
        }))
    }

    /// The newest segment's number and the next record's in it, which is taken by this.
    fn take_place(&self) -> Place {
        let mut segments = self.segments();
        if segments.is_empty() {
            segments.push(Segment { number: 0, next: 0, bytes: 0, records: Vec::new() });
        }
        segments.last_mut().map_or(Place { segment: 0, offset: 0 }, |newest| {
            let place = Place { segment: newest.number, offset: newest.next };
            newest.next += 1;
            place
        })
    }

    /// Notes that a record is there.
    fn stored(&self, place: Place, bytes: u64) {
        let mut segments = self.segments();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.number == place.segment) {
            segment.bytes += bytes;
            segment.records.push(place.offset);
        }
    }

    async fn frame_at(&self, place: Place) -> Result<Frame, LogError> {
        let found = self.asked(|records| records.get(place.segment as f64, place.offset as f64)).await?;
        let mut bytes = found
            .dyn_ref::<Uint8Array>()
            .map(|bytes| Bytes::from(bytes.to_vec()))
            .ok_or_else(|| self.damaged(place, "there is nothing any more"))?;
        if bytes.len() < BEFORE {
            return Err(self.damaged(place, "it is shorter than its checksum"));
        }
        if bytes.get_u32_le() != adler2::adler32_slice(&bytes) {
            return Err(self.damaged(place, "its checksum is wrong"));
        }
        Frame::stored_at(&bytes, self.name(), place)
    }
}

impl RedoLog for StoredLog {
    fn name(&self) -> String {
        format!("'{}' of this browser", self.name)
    }

    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>> {
        let log = self.clone();
        let bytes = match frame.to_bytes() {
            Ok(bytes) => bytes,
            Err(reason) => return Box::pin(std::future::ready(Err(self.unavailable(reason)))),
        };
        drop(frame);
        // Put together outside of this memory, which never shrinks.
        let size = BEFORE + bytes.len();
        let record = Uint8Array::new_with_length(u32::try_from(size).unwrap_or(u32::MAX));
        record.subarray(0, BEFORE as u32).copy_from(&adler2::adler32_slice(&bytes).to_le_bytes());
        record.subarray(BEFORE as u32, record.length()).copy_from(&bytes);
        drop(bytes);
        let place = self.take_place();
        let put = self.asked(|records| records.put(place.segment as f64, place.offset as f64, record));
        Box::pin(async move {
            put.await?;
            log.stored(place, size as u64);
            Ok(place)
        })
    }

    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>> {
        let mut segments = self.segments();
        let number = segments.last().map_or(0, |last| last.number + 1);
        segments.push(Segment { number, next: 0, bytes: 0, records: Vec::new() });
        Box::pin(std::future::ready(Ok(number)))
    }

    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>> {
        let log = self.clone();
        let places: Vec<Place> = self
            .segments()
            .iter()
            .flat_map(|segment| {
                let place = |offset: &u64| Place { segment: segment.number, offset: *offset };
                segment.records.iter().map(place).collect::<Vec<_>>()
            })
            .collect();
        let read = move |place: Place| {
            let log = log.clone();
            async move { Ok((place, log.frame_at(place).await?)) }
        };
        Box::pin(stream::iter(places).then(read))
    }

    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>> {
        let log = self.clone();
        Box::pin(async move { log.frame_at(place).await })
    }

    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>> {
        let log = self.clone();
        let dropped = self.asked(|records| records.drop_before(segment as f64));
        Box::pin(async move {
            dropped.await?;
            log.segments().retain(|kept| kept.number >= segment);
            Ok(())
        })
    }

    fn size(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes).sum()
    }
}
