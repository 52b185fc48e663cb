/**
 * The Tinker client and recovery layer for JavaScript and TypeScript.
 *
 * @packageDocumentation
 */
export type {
  Datum,
  DmelChunk,
  ForwardBackwardOutput,
  ImageAssetPointerChunk,
  ImageChunk,
  ModelInput,
  ModelInputChunk,
  Tensor,
  TensorData,
  TensorValues,
  Tokens,
} from "./data.js";
export { type PendingEvent, PendingResult, type QueueState } from "./pending.js";
export {
  type CheckpointPolicy,
  type Fate,
  RecoveringTrainingClient,
  type RedoEvent,
  type RedoOptions,
  type ReplayPlan,
  type Resumed,
  type RetentionRule,
} from "./recovering-client.js";
export { deleteRedoLog, listRedoLogs } from "./redo-logs.js";
export * from "./rest.js";
export {
  type SampledSequence,
  type SampleOptions,
  type SampleResponse,
  SamplingClient,
  type SamplingParams,
  type StopReason,
  type TopkLogprobs,
} from "./sampling-client.js";
export {
  type FromStateOptions,
  type LoraOptions,
  type RunOptions,
  ServiceClient,
  type SessionOptions,
} from "./service-client.js";
export {
  type AdamParams,
  type DimuonParams,
  type Loaded,
  type CustomLoss,
  type CustomLossFn,
  type LossFn,
  type OptimStepResult,
  type PassOptions,
  type Saved,
  type SaveOptions,
  TrainingClient,
} from "./training-client.js";
