// onnxruntime-node's side of a measurement, in a process of its own. It is no dependency: peers.ts installs it into a folder.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { MiniGptError } from '../errors.js';
import { MODEL_FILE } from './onnx-vit.js';
import { notAsked, serve } from './serve.js';

/** The part of onnxruntime-node that is used here. */
interface Library {
  InferenceSession: { create(path: string, options: object): Promise<Session> };
  Tensor: new (type: 'float32', values: Float32Array, shape: number[]) => unknown;
}
interface Session {
  run(inputs: Record<string, unknown>): Promise<Record<string, { data: Float32Array }>>;
}

let session: Session | undefined;
let pixels: unknown;

serve({
  async load({ onnx, peerFolder, threads }) {
    const { folder, imageSize } = onnx!;
    const library = createRequire(pathToFileURL(join(resolve(peerFolder!), 'index.js')))('onnxruntime-node') as Library;
    const began = performance.now();
    session = await library.InferenceSession.create(join(folder, MODEL_FILE), {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      graphOptimizationLevel: 'all',
      executionMode: 'sequential',
    });
    const ms = performance.now() - began;
    const values = Float32Array.from({ length: 3 * imageSize ** 2 }, (_, i) => Math.sin(i));
    pixels = new library.Tensor('float32', values, [1, 3, imageSize, imageSize]);
    return ms;
  },
  async run(test) {
    if (!session) throw new MiniGptError('ERR_INTERNAL', 'a test was asked for before a model');
    if (test.kind !== 'vit') notAsked(test);
    const began = performance.now();
    const { features } = await session.run({ pixels });
    const ms = performance.now() - began;
    if (!features!.data.every(Number.isFinite))
      throw new MiniGptError('ERR_INTERNAL', 'the encoded picture has values that are no finite numbers');
    return ms;
  },
});
