import type { Client, Sampling } from "#wasm";
import { Connected } from "./connected.js";
import { connection } from "./connection.js";
import { chunks, type ModelInput, type TensorData } from "./data.js";
import { Handle, type SharedHandle } from "./handle.js";
import { type CallOptions, type ClientOptions, known, wire } from "./options.js";
import type { PendingEvent } from "./pending.js";
import { values } from "./stream.js";
import type { Sampler } from "./types.js";

/** How tokens are chosen, and what ends a sample. */
export interface SamplingParams {
  /** The most tokens; absent = up to the model's context. */
  readonly maxTokens?: number | undefined;
  /** The same seed draws the same tokens; absent = any. */
  readonly seed?: number | undefined;
  /** What ends a sample: a text, texts, or token ids; absent = the model's own end. */
  readonly stop?: string | readonly string[] | readonly number[] | undefined;
  /** What logits are divided by: 1; 0 = the most probable token. */
  readonly temperature?: number | undefined;
  /** Only so many of the most probable tokens; -1 = all. */
  readonly topK?: number | undefined;
  /** Only the most probable tokens with this share together; 1 = all. */
  readonly topP?: number | undefined;
}

/** What is asked of a sample beside its prompt. */
export interface SampleOptions extends CallOptions {
  /** How many samples, each drawn by itself; 1. */
  readonly numSamples?: number | undefined;
  /** How tokens are chosen, and what ends a sample; absent = the defaults of each. */
  readonly samplingParams?: SamplingParams | undefined;
  /** Score the prompt's tokens; false. */
  readonly includePromptLogprobs?: boolean | undefined;
  /** So many of the most probable tokens at each prompt position; 0. */
  readonly topkPromptLogprobs?: number | undefined;
  /** So many of the most probable tokens at each sampled position; 0. */
  readonly topkSampleLogprobs?: number | undefined;
  /** Score these tokens at the prompt's positions after the first: as many for each, -1 for none. */
  readonly targetPromptLogprobs?: readonly (readonly number[])[] | undefined;
  /** Draw so many tokens at each prompt position after the first; 0. */
  readonly promptAltTokensK?: number | undefined;
  /** Score only so many of the prompt's last tokens, at least 1; needs `includePromptLogprobs`. Absent = all. */
  readonly promptLogprobsLastN?: number | undefined;
}

/** The most probable tokens of each position: pairs of a token and its log-probability, absent where there are none. */
export type TopkLogprobs = readonly (readonly (readonly [token: number, logprob: number])[] | null)[];

/** Why a sample ended: something that was to end it came (`stop`), or it is as long as it may be (`length`). */
export type StopReason = "stop" | "length" | (string & {});

/** One sample. */
export interface SampledSequence {
  /** Why it ended. */
  readonly stopReason: StopReason;
  /** Its tokens; what ended it is among them. */
  readonly tokens: Int32Array;
  /** The log-probability of each token, in nats; empty where the service gives none. */
  readonly logprobs: Float32Array;
  /** The most probable tokens at each of its positions, where they were asked for. */
  readonly topkLogprobs?: TopkLogprobs;
  /** The service's name of it, where it gives one. */
  readonly sequenceId?: string;
}

/** What was sampled. */
export interface SampleResponse {
  /** One for each sample, in order. */
  readonly sequences: readonly SampledSequence[];
  /** The log-probability of each of the prompt's tokens, in nats; NaN where there is none. Absent where they were not asked for. */
  readonly promptLogprobs?: Float32Array;
  /** The most probable tokens at each of the prompt's positions, where they were asked for. */
  readonly topkPromptLogprobs?: TopkLogprobs;
  /** The log-probabilities of the tokens that were asked for, in nats, row by row; 0 where there was -1. */
  readonly targetPromptLogprobs?: Float32Array;
  /** Tokens drawn for each prompt position after the first, where they were asked for. */
  readonly promptAltTokens?: {
    /** Token ids. */
    readonly tokens: TensorData;
    /** Their log-probabilities, in nats. */
    readonly logprobs: TensorData;
  };
  /** How many of the prompt's tokens were in a cache already. */
  readonly promptCacheHitTokens: number;
}

/**
 * Samples. A sample is tried again, as a new request, while the service cannot be reached, is overloaded or has lost the result.
 * How many are under way at once is the service's to say: the others wait here.
 */
export class SamplingClient extends Connected {
  readonly #sampling: Handle<Sampling>;

  private constructor(client: SharedHandle<Client>, sampling: Handle<Sampling>) {
    super(client, sampling);
    this.#sampling = sampling;
  }

  /** @internal */
  static _of(client: SharedHandle<Client>, sampling: Sampling): SamplingClient {
    return new SamplingClient(client, Handle.of(sampling));
  }

  /** Another client of a sampler, from a {@link handle}, or from one of the official SDK. */
  static async fromHandle(handle: string, of: (ClientOptions | Connected) & CallOptions = {}): Promise<SamplingClient> {
    const client = connection(of, ["signal"]);
    const { signal } = of;
    const sampling = await client.call<Sampling>((raw, wasm) => wasm.Sampling.fromHandle(raw, handle, signal));
    return SamplingClient._of(client, sampling);
  }

  /** The sampler. */
  get samplerId(): string {
    return this.#sampling.ask((sampling) => sampling.samplerId);
  }

  /** The session that it belongs to. */
  get sessionId(): string {
    return this.#sampling.ask((sampling) => sampling.sessionId);
  }

  /** The sampler as a text, for other programs. It holds no credentials. */
  get handle(): string {
    return this.#sampling.ask((sampling) => sampling.handle);
  }

  /** Draws samples that go on from a prompt. */
  async sample(prompt: ModelInput, options: SampleOptions = {}): Promise<SampleResponse> {
    const { signal, samplingParams = {}, targetPromptLogprobs: targets, ...rest } = known("sample", options, [
      "numSamples",
      "samplingParams",
      "includePromptLogprobs",
      "topkPromptLogprobs",
      "topkSampleLogprobs",
      "targetPromptLogprobs",
      "promptAltTokensK",
      "promptLogprobsLastN",
      "signal",
    ]);
    known("samplingParams", samplingParams, ["maxTokens", "seed", "stop", "temperature", "topK", "topP"]);
    const wanted = wire({
      ...rest,
      samplingParams: JSON.parse(wire(samplingParams)),
      targetPromptLogprobs: targets && { data: targets.flat(), dtype: "int64", shape: [targets.length, targets[0]?.length ?? 0] },
    });
    return this.#sampling.call((sampling) => sampling.sample(chunks(prompt), wanted, signal));
  }

  /** The log-probability of each of the prompt's tokens, in nats; NaN for the first, and before the last `lastN`. */
  async computeLogprobs(
    prompt: ModelInput,
    options: CallOptions & {
      /** Only so many of the prompt's last tokens, at least 1; absent = all. */
      readonly lastN?: number | undefined;
    } = {},
  ): Promise<Float32Array> {
    const { lastN, signal } = known("computeLogprobs", options, ["lastN", "signal"]);
    return this.#sampling.call((sampling) => sampling.computeLogprobs(chunks(prompt), lastN, signal));
  }

  /** What the server knows of the sampler. */
  async getSampler(options: CallOptions = {}): Promise<Sampler> {
    const { signal } = known("getSampler", options, ["signal"]);
    return this.#sampling.call((sampling) => sampling.info(signal));
  }

  /** How the service stands to this client's samples, from now on: each change once. */
  events(options: CallOptions = {}): AsyncIterableIterator<PendingEvent> {
    const { signal } = known("events", options, ["signal"]);
    const events = this.#sampling.ask((sampling) => sampling.events());
    return values<PendingEvent>(() => events, { signal });
  }

  /** The same sampler; the service records what training by the loss `stable_reinforce` needs of each sample. */
  recordingStabilityInfo(): SamplingClient {
    return SamplingClient._of(this._client, this.#sampling.ask((sampling) => sampling.recordingStability()));
  }
}
