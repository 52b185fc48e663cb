/**
 * The smaller half of retinker: runs, checkpoints and sessions looked at and managed, lost runs found and restored. For training and
 * sampling take the package's main entry.
 *
 * @packageDocumentation
 */
export { Connected } from "./connected.js";
export {
  CancelledError,
  ConfigError,
  ConnectionError,
  type ErrorCategory,
  type ErrorDetails,
  HostError,
  PanickedError,
  PoisonedError,
  RecoveryError,
  RequestFailedError,
  RetinkerError,
  StatusError,
} from "./errors.js";
export { HostClient, type HostOptions } from "./host-client.js";
export type * from "./host-types.js";
export type { Listing } from "./listing.js";
export { init, type WasmSource } from "./init.js";
export type { CallOptions, ClientOptions } from "./options.js";
export { RestorePlan } from "./plan.js";
export { Recovery, type RestoreOptions } from "./recovery.js";
export type * from "./recovery-types.js";
export { type ListingOptions, type PageOptions, RestClient, type ScopeOptions, type SessionSearch } from "./rest-client.js";
export type * from "./types.js";
