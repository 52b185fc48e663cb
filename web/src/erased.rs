//! Leptos's signals, memos and effects, compiled once.
//!
//! Leptos compiles its machinery anew for every type that a signal holds and for every closure of a memo or an effect: sixty
//! copies, a quarter of what a browser would load. Here it is compiled for one type that holds anything; what is left for each
//! type is a few instructions that take the value out again. The names and methods are leptos's own.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use leptos::prelude::{
    Effect as LeptosEffect, Get, GetUntracked, Memo as LeptosMemo, Read, ReadUntracked,
    RwSignal as LeptosSignal, Set, Signal, Track, Write,
};

/// A closure behind a pointer. Like `dyn Fn() -> T`, whose table has three entries for a call, of which two are never used:
/// with a thousand closures that is something to load.
pub(crate) trait Reads<T> {
    fn read(&self) -> T;
}

impl<T, F: Fn() -> T> Reads<T> for F {
    fn read(&self) -> T {
        self()
    }
}

/// The same for `dyn FnMut()`.
trait Acts {
    fn act(&mut self);
}

impl<F: FnMut()> Acts for F {
    fn act(&mut self) {
        self();
    }
}

/// What a signal or memo may hold.
pub(crate) trait Anything: Send + Sync + 'static {}
impl<T: Send + Sync + 'static> Anything for T {}

/// A value of any type that can be compared with another.
trait Compared: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn same(&self, other: &dyn Any) -> bool;
}

impl<T: PartialEq + Anything> Compared for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

#[derive(Clone)]
struct Value(Arc<dyn Compared>);

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(other.0.as_any())
    }
}

/// The value as what it was put in as. It cannot be anything else: whoever holds the signal knows its type.
fn known<T: 'static>(value: Option<&T>) -> &T {
    value.unwrap_or_else(|| std::process::abort())
}

/// Something computed from signals, again when one of them changes; who depends on it runs again only if it differs.
pub(crate) struct Memo<T> {
    inner: LeptosMemo<Value>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Memo<T> {}

impl<T: PartialEq + Anything> Memo<T> {
    /// Unlike leptos's, `compute` is not given what it returned the last time.
    pub(crate) fn new(compute: impl Fn(()) -> T + Send + Sync + 'static) -> Self {
        Self { inner: memo(Box::new(move || Value(Arc::new(compute(()))))), of: PhantomData }
    }

    pub(crate) fn with<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(known(self.inner.get().0.as_any().downcast_ref()))
    }

    pub(crate) fn with_untracked<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(known(self.inner.get_untracked().0.as_any().downcast_ref()))
    }

    pub(crate) fn track(&self) {
        self.inner.track();
    }
}

impl<T: Clone + PartialEq + Anything> Memo<T> {
    /// As what views and attributes take.
    pub(crate) fn signal(self) -> Signal<T> {
        self.into()
    }

    pub(crate) fn get(&self) -> T {
        self.with(T::clone)
    }

    pub(crate) fn get_untracked(&self) -> T {
        self.with_untracked(T::clone)
    }

    /// `None` once the part of the page that it belongs to is gone.
    pub(crate) fn try_get_untracked(&self) -> Option<T> {
        let value = self.inner.try_get_untracked()?;
        value.0.as_any().downcast_ref().cloned()
    }
}

impl<T: Clone + PartialEq + Anything> From<Memo<T>> for Signal<T> {
    fn from(memo: Memo<T>) -> Self {
        Self::derive(move || memo.get())
    }
}

impl<T: Clone + Anything> From<RwSignal<T>> for Signal<T> {
    fn from(signal: RwSignal<T>) -> Self {
        Self::derive(move || signal.get())
    }
}

fn memo(compute: Box<dyn Reads<Value> + Send + Sync>) -> LeptosMemo<Value> {
    LeptosMemo::new(move |_| compute.read())
}

struct Content(Box<dyn Any + Send + Sync>);

/// Something that is set, and who reads it runs again.
pub(crate) struct RwSignal<T> {
    inner: LeptosSignal<Content>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for RwSignal<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RwSignal<T> {}

impl<T: Default + Anything> Default for RwSignal<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Anything> RwSignal<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { inner: signal(Box::new(value)), of: PhantomData }
    }

    pub(crate) fn set(&self, value: T) {
        set(self.inner, Box::new(value));
    }

    /// `false` once the part of the page that it belongs to is gone.
    pub(crate) fn try_set(&self, value: T) -> bool {
        self.inner.try_set(Content(Box::new(value))).is_none()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        let mut content = self.inner.write();
        if let Some(value) = content.0.downcast_mut() {
            change(value);
        }
    }

    /// `None` once the part of the page that it belongs to is gone.
    pub(crate) fn try_update<U>(&self, change: impl FnOnce(&mut T) -> U) -> Option<U> {
        let mut content = self.inner.try_write()?;
        content.0.downcast_mut().map(change)
    }

    pub(crate) fn with<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(known(self.inner.read().0.downcast_ref()))
    }

    pub(crate) fn with_untracked<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(known(self.inner.read_untracked().0.downcast_ref()))
    }

    /// `None` once the part of the page that it belongs to is gone.
    pub(crate) fn try_with_untracked<U>(&self, read: impl FnOnce(&T) -> U) -> Option<U> {
        let content = self.inner.try_read_untracked()?;
        content.0.downcast_ref().map(read)
    }

    pub(crate) fn track(&self) {
        self.inner.track();
    }
}

impl<T: Clone + Anything> RwSignal<T> {
    /// As what views and attributes take.
    pub(crate) fn signal(self) -> Signal<T> {
        self.into()
    }

    pub(crate) fn get(&self) -> T {
        self.with(T::clone)
    }

    pub(crate) fn get_untracked(&self) -> T {
        self.with_untracked(T::clone)
    }

    /// `None` once the part of the page that it belongs to is gone.
    pub(crate) fn try_get_untracked(&self) -> Option<T> {
        self.try_with_untracked(T::clone)
    }
}

fn signal(value: Box<dyn Any + Send + Sync>) -> LeptosSignal<Content> {
    LeptosSignal::new(Content(value))
}

fn set(signal: LeptosSignal<Content>, value: Box<dyn Any + Send + Sync>) {
    signal.set(Content(value));
}

/// Something that is done, and again when a signal that it has read changes.
pub(crate) struct Effect;

impl Effect {
    /// `act` is given what it returned the last time.
    #[allow(clippy::new_ret_no_self)]
    pub(crate) fn new<T: 'static>(mut act: impl FnMut(Option<T>) -> T + 'static) {
        let mut before = None;
        effect(Box::new(move || before = Some(act(before.take()))));
    }
}

fn effect(mut act: Box<dyn Acts>) {
    LeptosEffect::new(move |_: Option<()>| act.act());
}
