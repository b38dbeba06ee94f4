//! Large buffers that are used again: fresh ones cost the kernel a page fault every 4 KiB.
//!
//! Contract: a [`Lent`] buffer comes back when it is dropped, on whatever thread; no more than `keep` wait, and none
//! larger than `largest` elements. What a lent buffer holds at first is what its last user left.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Where buffers wait.
#[derive(Debug, Clone)]
pub struct Spares<T>(Arc<Shelf<T>>);

#[derive(Debug)]
struct Shelf<T> {
    waiting: Mutex<Vec<Vec<T>>>,
    keep: usize,
    largest: usize,
}

impl<T> Spares<T> {
    /// Keeps at most `keep` buffers of at most `largest` elements.
    pub fn new(keep: usize, largest: usize) -> Self {
        Self(Arc::new(Shelf { waiting: Mutex::default(), keep, largest }))
    }

    /// The buffer that came back last, or an empty one.
    pub fn lend(&self) -> Lent<T> {
        let buffer = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { buffer: buffer.unwrap_or_default(), home: Some(self.0.clone()) }
    }
}

/// A buffer on loan.
#[derive(Debug)]
pub struct Lent<T> {
    buffer: Vec<T>,
    home: Option<Arc<Shelf<T>>>,
}

/// One that nobody waits for.
impl<T> From<Vec<T>> for Lent<T> {
    fn from(buffer: Vec<T>) -> Self {
        Self { buffer, home: None }
    }
}

impl<T> Deref for Lent<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.buffer
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.buffer
    }
}

impl<T> AsRef<[T]> for Lent<T> {
    fn as_ref(&self) -> &[T] {
        &self.buffer
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        let Some(home) = self.home.take().filter(|home| self.buffer.capacity() <= home.largest) else { return };
        let mut waiting = home.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < home.keep && self.buffer.capacity() > 0 {
            waiting.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_unless_it_is_too_large_or_one_too_many() {
        let spares = Spares::<u8>::new(1, 100);
        let (mut a, mut b, mut large) = (spares.lend(), spares.lend(), spares.lend());
        a.resize(90, 1);
        b.resize(80, 2);
        large.resize(101, 3);
        let at = a.as_ptr();
        drop((a, b, large));
        let again = spares.lend();
        assert_eq!((again.as_ptr(), again.len()), (at, 90));
        assert_eq!((spares.lend().capacity(), Lent::from(vec![1, 2]).len()), (0, 2));
    }
}
