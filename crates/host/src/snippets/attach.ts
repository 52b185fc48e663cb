// Goes on with a restored run, with optimizer state and all. Needs the npm package `retinker` and TINKER_API_KEY.
// The number is good for one attach: a second program needs the number that the first one ended with.
import { TrainingClient } from "retinker";

const trainingClient = await TrainingClient.attach(
  { sessionId: {session_id}, modelId: {model_id}, nextSeqId: {next_seq_id} },
  { baseUrl: {base_url} },
);
console.log("attached to", trainingClient.modelId);
