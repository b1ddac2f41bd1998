// node-llama-cpp's side of a measurement, in a process of its own. It is no dependency: peers.ts installs it into a folder.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { MiniGptError } from '../errors.js';
import { notAsked, serve } from './serve.js';
import { someIds, type Test } from './measured-test.js';

/** The part of node-llama-cpp that is used here. */
interface Library {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<Model> }>;
}
interface Model {
  createContext(options: object): Promise<{ getSequence(): Sequence }>;
}
interface Sequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: number[]): Promise<void>;
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
}

/** Every synthetic vocabulary has these ids. */
const VOCABULARY = 1000;
/** llama.cpp's default. */
const BATCH = 512;

let sequence: Sequence | undefined;

async function generated(of: Sequence, count: number, turn: number): Promise<number> {
  let [first, last] = [NaN, NaN];
  let tokens = 0;
  const options = { temperature: 0, yieldEogToken: true };
  for await (const _ of of.evaluate(someIds(1, VOCABULARY, turn), options)) {
    if (tokens === 0) first = performance.now(); // the first token comes from the prompt's own pass
    if (tokens++ < count) continue;
    last = performance.now(); // here, as leaving the loop ends the generator, which no token needs
    break;
  }
  if (tokens <= count) throw new MiniGptError('ERR_INTERNAL', `expected ${count + 1} tokens, found ${tokens}`);
  return last - first;
}

async function run(test: Test, turn: number): Promise<number> {
  if (!sequence) throw new MiniGptError('ERR_INTERNAL', 'a test was asked for before a model');
  await sequence.clearHistory();
  if (test.kind === 'generate') return generated(sequence, test.count, turn);
  if (test.kind !== 'prompt') notAsked(test);
  const began = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(someIds(test.count, VOCABULARY, turn));
  return performance.now() - began;
}

serve({
  async load({ llm, peerFolder, threads, contextLength }) {
    const entry = createRequire(pathToFileURL(join(resolve(peerFolder!), 'index.js'))).resolve('node-llama-cpp');
    const { getLlama } = (await import(pathToFileURL(entry).href)) as Library;
    const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, maxThreads: 0, logLevel: 'error' });
    const began = performance.now();
    const model = await llama.loadModel({ modelPath: llm });
    const ms = performance.now() - began;
    const context = await model.createContext({
      contextSize: contextLength,
      batchSize: BATCH,
      threads,
      sequences: 1,
    });
    sequence = context.getSequence();
    return ms;
  },
  run,
});
