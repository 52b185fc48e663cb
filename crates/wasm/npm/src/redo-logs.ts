/** Redo logs in the browser's own storage: one database of records, each stored whole or not at all. */
import { ConfigError, RecoveryError } from "./errors.js";

const DATABASE = "retinker-redo-logs";
const RECORDS = "records";

/** What a record is found by: its log, its segment, its number in it, and its bytes, so that they are known without reading it. */
type Key = [log: string, segment: number, number: number, bytes: number];

/** All keys that begin so: no number or text is greater than a list. */
const within = (...start: (string | number)[]): IDBKeyRange => IDBKeyRange.bound(start, [...start, []]);

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function database(): Promise<IDBDatabase> {
  if (typeof indexedDB === "undefined") {
    throw new ConfigError("there is no browser's storage here for a redo log with a name: leave `log` out, and it is kept in memory");
  }
  try {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(RECORDS);
    const opened = await settled(request);
    // Another page may want to delete all of it.
    opened.onversionchange = () => opened.close();
    return opened;
  } catch (cause) {
    throw new ConfigError("the browser's storage cannot be used for a redo log: does the page, or a private window, forbid it?", { cause });
  }
}

/** Why the browser has not stored it, and what helps. */
function whyNot(error: DOMException | null): Error {
  if (error?.name === "QuotaExceededError") {
    return new Error("the browser has no room left for it: delete other logs (deleteRedoLog), or lower boundBytes", { cause: error });
  }
  return error ?? new Error("the browser gave it up");
}

/** Does this to the records; what it changes is there for good when the promise is. */
async function change(at: IDBDatabase, act: (records: IDBObjectStore) => void): Promise<void> {
  const transaction = at.transaction(RECORDS, "readwrite", { durability: "strict" });
  const done = new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(whyNot(transaction.error));
  });
  act(transaction.objectStore(RECORDS));
  await done;
}

const records = (at: IDBDatabase): IDBObjectStore => at.transaction(RECORDS).objectStore(RECORDS);

/** For how long a log that is held is waited for, in milliseconds: who is closing it, or a page that is being left, lets go of it soon. */
const HELD_FOR_MS = 2_000;

/** Holds the log for this page alone; gives what lets it go. */
async function hold(log: string): Promise<() => void> {
  if (typeof navigator === "undefined" || navigator.locks === undefined) {
    throw new ConfigError("a redo log with a name needs a secure context (https, or localhost), so that one page at a time writes it");
  }
  let release!: () => void;
  const until = new Promise<void>((resolve) => (release = resolve));
  const patience = AbortSignal.timeout(HELD_FOR_MS);
  await new Promise<void>((resolve, reject) => {
    const held = navigator.locks.request(`retinker redo log ${log}`, { signal: patience }, () => {
      resolve();
      return until;
    });
    held.catch((error: unknown) => reject(error === patience.reason ? inUse(log) : error));
  });
  return release;
}

const inUse = (log: string) => new RecoveryError(`the redo log '${log}' is in use, by another page or by a client of this one: close or dispose of that, or name another log`, { code: "redo_log" });

/** The records of one log, held by this page. What the core's log asks for.
 *
 * @internal
 */
export class LogRecords {
  readonly #under = new Set<Promise<unknown>>();
  #closed = false;
  #taken = false;

  private constructor(
    readonly name: string,
    private readonly at: IDBDatabase,
    private readonly release: () => void,
  ) {}

  /** Opens the log of this name, which is made if there is none. */
  static async open(name: string): Promise<LogRecords> {
    if (name === "") throw new ConfigError("a redo log's name cannot be empty");
    const at = await database();
    try {
      return new LogRecords(name, at, await hold(name));
    } catch (error) {
      at.close();
      throw error;
    }
  }

  #asked<T>(act: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new Error("it was closed"));
    const asked = act();
    this.#under.add(asked);
    const over = () => this.#under.delete(asked);
    asked.then(over, over);
    return asked;
  }

  list(): Promise<[segment: number, number: number, bytes: number][]> {
    this.#taken = true;
    return this.#asked(async () => {
      const keys = (await settled(records(this.at).getAllKeys(within(this.name)))) as unknown as Key[];
      return keys.map(([, segment, number, bytes]) => [segment, number, bytes]);
    });
  }

  put(segment: number, number: number, record: Uint8Array): Promise<void> {
    const key: Key = [this.name, segment, number, record.byteLength];
    return this.#asked(() => change(this.at, (records) => records.add(record, key)));
  }

  get(segment: number, number: number): Promise<Uint8Array | undefined> {
    return this.#asked(() => settled<Uint8Array | undefined>(records(this.at).get(within(this.name, segment, number))));
  }

  dropBefore(segment: number): Promise<void> {
    const range = IDBKeyRange.bound([this.name], [this.name, segment], false, true);
    return this.#asked(() => change(this.at, (records) => records.delete(range)));
  }

  /** Lets go of the log if nobody has read it; who has lets go of it by himself. */
  unlessTaken(): void {
    if (!this.#taken) this.close();
  }

  /** Lets go of the log once what is being stored is there. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void Promise.allSettled(this.#under).then(() => {
      this.at.close();
      this.release();
    });
  }
}

/** The names of the redo logs in the browser's own storage, of this origin. */
export async function listRedoLogs(): Promise<string[]> {
  const at = await database();
  try {
    const keys = (await settled(records(at).getAllKeys())) as unknown as Key[];
    return [...new Set(keys.map(([log]) => log))];
  } finally {
    at.close();
  }
}

/** Deletes the redo log of this name from the browser's own storage; what is not there is deleted. One that a page has open is refused. */
export async function deleteRedoLog(name: string): Promise<void> {
  const at = await database();
  try {
    const release = await hold(name);
    try {
      await change(at, (records) => records.delete(within(name)));
    } finally {
      release();
    }
  } finally {
    at.close();
  }
}
