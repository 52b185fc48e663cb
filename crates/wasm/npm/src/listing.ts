/** Things that are read a page at a time: `for await` gives one after the other, {@link pages} whole pages. */
export interface Listing<T> extends AsyncIterable<T> {
  /** The same by pages. Nothing is asked before the first is. */
  pages(): AsyncIterableIterator<T[]>;
}
