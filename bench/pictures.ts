// What it brings to encode several pictures at once: ViT-g's and the Q-Former's shapes with random weights and fewer layers, which all
// take the same time. Loads one model for each number of pictures at once and has them work in turn.
//
//   node --import tsx bench/pictures.ts [--device cpu] [--batches 1,2,4] [--types f16,q8_0] [--pictures 12] [--repeat 5]
//                                       [--vit 6] [--qformer 2] [--threads N]
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { addon, type NativeModel, type TypeName } from '../lib/addon.js';
import { threadTimes, threadUse } from '../lib/bench/machine.js';
import { middle } from '../lib/bench/measured-test.js';
import { LLMS, writeLlm, writeVision } from '../lib/bench/synthetic.js';

const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'cpu' },
    batches: { type: 'string', default: '1,2,4' },
    types: { type: 'string', default: 'f16,q8_0' },
    pictures: { type: 'string', default: '12' },
    repeat: { type: 'string', default: '5' },
    vit: { type: 'string', default: '6' },
    qformer: { type: 'string', default: '2' },
    threads: { type: 'string' },
  },
});
const pictures = Number(values.pictures);

/** Milliseconds a picture on the clock, and of all threads on a core. */
async function once(model: NativeModel): Promise<{ ms: number; coreMs: number }> {
  const size = model.info().imageSize;
  const before = threadTimes();
  const began = performance.now();
  await Promise.all(
    Array.from({ length: pictures }, (_, i) =>
      model.encodeFeatures(new Uint8Array(size * size * 3).fill(20 * i), size, size),
    ),
  );
  const ms = performance.now() - began;
  return { ms: ms / pictures, coreMs: (threadUse(before)?.coreMs ?? NaN) / pictures };
}

const folder = await mkdtemp(join(tmpdir(), 'minigpt4-pictures-'));
try {
  const llm = join(folder, 'llm.gguf');
  await writeLlm('65m', 'q4_0', llm);
  for (const type of values.types.split(',') as TypeName[]) {
    const vision = join(folder, `vision-${type}.gguf`);
    await writeVision(type, vision, LLMS['65m']!.width, { vit: Number(values.vit), qformer: Number(values.qformer) });
    const models = await Promise.all(
      values.batches.split(',').map((imageBatch) =>
        addon.loadModel({
          model: vision,
          llm,
          device: values.device,
          imageBatch: Number(imageBatch),
          contextLength: 64,
          ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
        }),
      ),
    );
    for (const model of models) await once(model); // threads, scratch memory and clocks
    const times = models.map(() => ({ ms: [] as number[], coreMs: [] as number[] }));
    for (let turn = 0; turn < Number(values.repeat); turn++) {
      for (const [i, model] of models.entries()) {
        const { ms, coreMs } = await once(model);
        times[i]!.ms.push(ms);
        times[i]!.coreMs.push(coreMs);
      }
    }
    for (const [i, model] of models.entries()) {
      const { imageBatch, device, memory } = model.info();
      const activations = memory.find(({ owner }) => owner === 'activations')?.bytes ?? 0;
      console.log(
        `${device}, ${type}, ${imageBatch} at once: ${middle(times[i]!.ms).toFixed(1)} ms a picture, ` +
          `${middle(times[i]!.coreMs).toFixed(1)} ms on a core, ${(activations / 2 ** 20).toFixed(0)} MiB of activations`,
      );
      await model.close();
    }
    await rm(vision);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
