//! Matrix products on the calling thread: the one place that calls the `gemm` crate.
#![allow(unsafe_code)] // gemm takes raw pointers; the views below establish their bounds.

use gemm::{Parallelism, gemm};

/// A matrix within a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A row-major matrix to write to, within a slice.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// How many values a row-major matrix spans.
fn span(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}

impl<'a> View<'a> {
    /// The first `rows * cols` values as a row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` values that begin `row_stride` values apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= cols && span(rows, cols, row_stride) <= data.len(), "matrix outside its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

impl<'a> ViewMut<'a> {
    /// The first `rows * cols` values as a row-major matrix.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` values that begin `row_stride` values apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= cols && span(rows, cols, row_stride) <= data.len(), "matrix outside its slice");
        Self { data, rows, cols, row_stride }
    }
}

/// `out = scale * lhs * rhs`, or `out += scale * lhs * rhs` when `accumulate`.
pub(crate) fn matmul(out: ViewMut<'_>, lhs: View<'_>, rhs: View<'_>, scale: f32, accumulate: bool) {
    let (m, n, k) = (out.rows, out.cols, lhs.cols);
    assert!(lhs.rows == m && rhs.rows == k && rhs.cols == n, "matrix sizes do not agree");
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the constructors checked that (rows - 1) * row_stride + cols is within the slice and that rows do not
    // overlap; `t` only swaps the roles of the axes. Strides and sizes come from slices, so they fit in isize. `out` is
    // a unique borrow, so it overlaps neither operand; its values are initialised.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0_f32,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_strided_and_transposed() {
        // lhs = [[1, 2], [3, 4]] inside rows of 3; rhs^T = [[5, 6], [7, 8], [9, 10]].
        let lhs = [1.0, 2.0, -1.0, 3.0, 4.0];
        let rhs = [5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        let mut out = [100.0; 9];
        matmul(
            ViewMut::strided(&mut out, 2, 3, 5),
            View::strided(&lhs, 2, 2, 3),
            View::new(&rhs, 3, 2).t(),
            2.0,
            false,
        );
        assert_eq!(out, [34.0, 46.0, 58.0, 100.0, 100.0, 78.0, 106.0, 134.0, 100.0]);
        matmul(
            ViewMut::strided(&mut out, 2, 3, 5),
            View::strided(&lhs, 2, 2, 3),
            View::new(&rhs, 3, 2).t(),
            1.0,
            true,
        );
        assert_eq!(out[..3], [51.0, 69.0, 87.0]);
    }

    #[test]
    #[should_panic(expected = "outside its slice")]
    fn refuses_a_matrix_beyond_its_slice() {
        let _ = View::new(&[0.0; 5], 2, 3);
    }
}
