/**
 * What the wasm tells as JSON, as JavaScript programs expect it: members in camelCase, times as `Date`, what is not there left out.
 * The core's types stay in the core: what is only passed on would cost every page that loads this a reader and a writer of each.
 */

/** Members that are times, wherever they stand. */
export const TIMES: ReadonlySet<string> = new Set([
  "as_of",
  "at",
  "bucket_end",
  "bucket_start",
  "cost_data_through",
  "created_at",
  "ended_at",
  "expires",
  "expires_at",
  "first",
  "heartbeats_until",
  "last",
  "last_request_time",
  "last_save",
  "made_at",
  "now",
  "since",
  "taken_over_at",
  "time",
  "timestamp",
  "updated_at",
]);

/** Members whose own members have names that people or services gave: they are left as they are. */
export const KEPT: ReadonlySet<string> = new Set([
  "event_details",
  "metrics",
  "optimizer_config",
  "urls",
]);

/** Labels: their names are people's, and their values texts. Servers give what is no text as it is. */
const LABELS: ReadonlySet<string> = new Set(["own_metadata", "user_metadata"]);

/** A text of the wasm's. */
export function read<T>(text: string): T {
  return shaped(JSON.parse(text), "") as T;
}

function shaped(value: unknown, name: string): unknown {
  if (value === null) return undefined;
  if (typeof value === "string") return TIMES.has(name) ? time(value) : value;
  if (typeof value !== "object" || KEPT.has(name)) return value;
  if (LABELS.has(name)) return labels(value);
  // In a list something is there even where it is nothing.
  if (Array.isArray(value)) return value.map((each) => (each === null ? null : shaped(each, "")));
  // The sessions of a bill are told by their ids.
  const isById = name === "sessions";
  const members = Object.entries(value).map(([key, each]) => [isById ? key : camel(key), shaped(each, key)] as const);
  return Object.fromEntries(members.filter(([, each]) => each !== undefined));
}

function labels(value: object): Record<string, string> {
  const all = Object.entries(value).map(([key, of]) => [key, typeof of === "string" ? of : JSON.stringify(of)] as const);
  return Object.fromEntries(all);
}

/** A time; one without a zone, as SkyRL sends, is UTC. */
function time(text: string): Date {
  return new Date(/(?:Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`);
}

function camel(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
