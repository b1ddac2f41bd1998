// The command that judges the model judges rightly: the fixtures pass at every type, and a changed expectation fails.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  compareIds,
  elementError,
  largestDifference,
  relativeError,
  result,
  worstCosineDistance,
} from '../lib/verify/measure.js';
import type { Device } from '../lib/options.js';
import { tolerance } from '../lib/verify/tolerance.js';
import { verify } from '../lib/verify/verify.js';
import { minigpt4 } from './command.js';
import { device } from './device-models.js';
import { fixture } from './models.js';

const suiteOf = suite('verify');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-verify-test-'));
suiteOf.after(() => rmSync(folder, { recursive: true, force: true }));

suiteOf('measures errors', () => {
  assert.is(relativeError([1, 2, 3], [1, 2, 4]), 0.25);
  assert.is(relativeError([0, 0], [0, 0]), 0);
  assert.is(relativeError([1], [0]), Infinity);
  assert.ok(Number.isNaN(relativeError([1], [1, 2])));
  assert.ok(Number.isNaN(relativeError([NaN, 1], [1, 1])));
  assert.is(elementError([1.5, 8], [1, 8]), 0.5);
  assert.is(largestDifference([1, 9], [3, 8]), 2);
  assert.ok(worstCosineDistance([1, 0, 0, 1], [1, 0, 0, 2], 2) < 1e-15);
  assert.is(worstCosineDistance([1, 0, 1, 0], [1, 0, 0, 1], 2), 1);
  assert.equal(compareIds([1, 2, 3], [1, 2, 3]), { different: 0 });
  assert.equal(compareIds([1, 2], [1, 3, 4]), { different: 2, note: 'first at 1: expected 3, found 2' });
  assert.equal(compareIds([1, 2], [1]), { different: 1, note: 'first at 1: expected the end, found 2' });
  assert.not.ok(result('x', 'relative', NaN, 1).pass, 'no number does not pass');
  assert.ok(result('x', 'relative', 9, undefined).pass, 'information always does');
});

// the rows of its language model are whole blocks, so that nothing is left wider than asked
for (const name of ['', '../tiny-gqa/'])
  for (const [type, limit] of [
    ['q8_0', 0.01],
    ['q4_0', 0.05],
  ] as const) {
    suiteOf(`gradients through ${type} weights point the float32 way, ${basename(fixture(name))}`, async () => {
      const stages = await verify(fixture(name), { type });
      for (const stage of ['stage1', 'stage2']) {
        const judged = stages.find((one) => one.stage === `${stage}.grad (direction)`)!;
        assert.is(judged.allowed, limit);
        assert.ok(judged.pass, `${stage}: 1 - cosine is ${judged.error}`);
        // weights that were left in float32 would show no difference
        assert.ok(judged.error > 1e-6, `${stage}: 1 - cosine is only ${judged.error}`);
      }
    });
  }

for (const type of ['f32', 'f16', 'q8_0'] as const) {
  suiteOf(`every stage passes with ${type}`, async () => {
    const stages = await verify(fixture(), { type });
    assert.equal(
      stages.filter(({ pass }) => !pass),
      [],
    );
    const names = stages.map(({ stage }) => stage);
    for (const name of [
      'resized224.scene.png',
      'pixels',
      'encode.vit.embed',
      'encode.vit.block.1',
      'encode.ln_vision',
      'encode.image_tokens',
      'chat.embeds',
      'chat.llama.layer.1',
      'chat.logits',
      'template vicuna0',
      'greedy ids',
      'stage1.losses',
      'stage1.after6.llama_proj.weight',
      'stage2.losses',
      'stage2.after6.llama_proj.weight',
    ]) {
      assert.ok(names.includes(name), `${name} was judged; found ${names.join(', ')}`);
    }
    const judged = stages.filter(({ allowed }) => allowed !== undefined).map(({ stage }) => stage);
    assert.is(judged.includes('chat.llama.layer.1'), type !== 'q8_0');
    assert.ok(judged.includes('chat.logits (direction)'));
  });
}

suiteOf('what is allowed depends on what computes and on the weights', () => {
  const cpu = { device: 'cpu avx512, 2 threads', gpuLayers: 0, visionDevice: 'cpu' } as const;
  const gpu = { device: 'a GPU', gpuLayers: 2, visionDevice: 'gpu' } as const;
  for (const type of ['f32', 'f16', 'bf16', 'q4_k'] as const) assert.is(tolerance(cpu, type).stage, 2e-4);
  const stages = (['f32', 'f16', 'q8_0', 'bf16'] as const).map((type) => tolerance(gpu, type).stage);
  assert.equal(stages, [4e-3, 8e-3, 3e-2, 6.4e-2]);
  assert.equal([tolerance(gpu, 'f32').gradient, tolerance(gpu, 'f16').gradient], [2e-3, 2e-2]);
  // a part on the GPU has its numbers
  assert.equal(tolerance({ ...cpu, visionDevice: 'gpu' }, 'f16'), tolerance(gpu, 'f16'));
  assert.equal(tolerance({ ...cpu, gpuLayers: 1 }, 'f16'), tolerance(gpu, 'f16'));
  // AdamW moves a value by the rate whatever its gradient's size: one near zero may go the other way where gradients are less exact
  const amx = tolerance({ ...cpu, device: 'cpu amx, 1 thread' }, 'f32');
  assert.equal([amx.stage, amx.gradient, amx.movedValues], [2e-4, 2e-4, false]);
  assert.is(tolerance(cpu, 'f32').movedValues, true);
  assert.match(amx.because, /bfloat16/);
  assert.not.match(tolerance({ ...cpu, device: 'cpu amx, 1 thread' }, 'q8_0').because, /bfloat16/);
  for (const info of [cpu, gpu]) {
    const { direction, movement } = tolerance(info, 'f16');
    // the opposite, or any other, direction is 1 or more
    assert.ok(direction < 1e-2 && movement < 1e-1, `${direction}, ${movement}`);
  }
});

for (const type of ['f32', 'f16'] as const) {
  suiteOf(`every stage passes on ${device} with ${type}, by what the device rounds to`, async () => {
    let told = '';
    const stages = await verify(fixture(), {
      type,
      device: device as Device,
      onDevice: (name, { because }) => (told = `${name}: ${because}`),
    });
    assert.equal(
      stages.filter(({ pass }) => !pass),
      [],
    );
    assert.match(told, type === 'f32' ? /attention in f16/ : /activations in f16/);
    const of = (name: string) => stages.find(({ stage }) => stage === name)!;
    assert.is(of('chat.logits').allowed, type === 'f32' ? 4e-3 : 8e-3);
    assert.ok(of('encode.ln_vision').error > 1e-5, 'the CPU is nearer than that');
    for (const stage of ['stage1', 'stage2']) {
      assert.is(of(`${stage}.losses`).allowed, type === 'f32' ? 2e-3 : 2e-2);
      assert.is(of(`${stage}.after6.llama_proj.weight`).allowed, undefined);
      assert.ok(of(`${stage}.after6 (direction)`).allowed! < 0.1);
    }
  });
}

suiteOf('every form of a language model gives the same ids', async () => {
  // with a Q-Former and grouped-query attention
  const stages = await verify(fixture('../tiny-gqa'));
  assert.equal(
    stages.filter(({ pass }) => !pass),
    [],
  );
  const names = stages.map(({ stage }) => stage);
  for (const name of ['encode.qformer.layer.0', 'greedy ids', 'greedy ids, vicuna-f16.gguf']) {
    assert.ok(names.includes(name), `${name} was judged; found ${names.join(', ')}`);
  }
});

suiteOf('prints a table, or JSON', async () => {
  const table = await minigpt4(['verify', fixture()]);
  assert.is(table.code, 0, table.stderr);
  assert.match(table.stdout, /^stage +largest error +allowed\n/);
  assert.match(table.stdout, /^chat\.logits +[0-9.e-]+ relative +2\.0e-4 +pass$/m);
  assert.match(
    table.stdout,
    /^computed by cpu .*; of the largest value 2\.0e-4 for a stage, 2\.0e-4 for losses and gradients$/m,
  );
  assert.match(table.stdout, /^f32: \d+ passed, 0 failed$/m);
  const json = await minigpt4(['verify', fixture(), '--json', '--type', 'q8_0']);
  const {
    type,
    device: computing,
    allowed,
    pass,
    stages,
  } = JSON.parse(json.stdout) as {
    type: string;
    device: string;
    allowed: { stage: number; gradient: number; because: string };
    pass: boolean;
    stages: { stage: string }[];
  };
  assert.equal([type, pass, json.code], ['q8_0', true, 0]);
  assert.match(computing, /^cpu /);
  assert.is(allowed.stage, 2e-4);
  assert.ok(stages.length > 10);
});

suiteOf('nothing passes before a device is there, and layers may be on both sides', async () => {
  const none = await minigpt4(['verify', fixture(), '--device', 'cuda:99']);
  assert.is(none.code, 1);
  assert.is(none.stdout, '');
  assert.match(none.stderr, /cuda:99|CUDA|cuda/);
  const stages = await verify(fixture(), { device: device as Device, gpuLayers: 1, visionDevice: 'cpu' });
  assert.equal(
    stages.filter(({ pass }) => !pass),
    [],
  );
  const { note } = stages.find(({ stage }) => stage === 'stage1')!;
  assert.match(note!, /not computed: training needs all layers in one place/);
  const beyond = await minigpt4(['verify', fixture(), '--device', device, '--gpu-layers', '99']);
  assert.is(beyond.code, 2, beyond.stderr);
  assert.match(beyond.stderr, /--gpu-layers is 99/);
});

suiteOf('fails where a stage differs', async () => {
  const copy = join(folder, 'changed');
  cpSync(fixture(), copy, { recursive: true });
  const expected = JSON.parse(readFileSync(join(copy, 'expected.json'), 'utf8')) as { chat: { greedy_ids: number[] } };
  expected.chat.greedy_ids[3]!++;
  writeFileSync(join(copy, 'expected.json'), JSON.stringify(expected));
  // one number of the image's vectors, moved by a thousandth of the largest
  const file = readFileSync(join(copy, 'expected.safetensors'));
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerLength).toString()) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const at = 8 + headerLength + header['encode.image_tokens']!.data_offsets[0] + 40;
  const values = new Float32Array(file.buffer.slice(file.byteOffset + at - 40, file.byteOffset + at + 4));
  file.writeFloatLE(values[10]! + 0.02, at);
  writeFileSync(join(copy, 'expected.safetensors'), file);
  const { code, stdout } = await minigpt4(['verify', copy]);
  assert.is(code, 1);
  assert.match(stdout, /^encode\.image_tokens .* FAIL$/m);
  assert.match(stdout, /^greedy ids .* FAIL \(first at 3: expected \d+, found \d+\)$/m);
  assert.match(stdout, /^f32: \d+ passed, 2 failed$/m);
});

suiteOf('says what a directory lacks', async () => {
  const copy = join(folder, 'lacking');
  cpSync(fixture(), copy, { recursive: true });
  rmSync(join(copy, 'eva_vit_g.pth'));
  const lacking = await minigpt4(['verify', copy]);
  assert.is(lacking.code, 1);
  assert.match(lacking.stderr, /is no fixture directory: expected eva_vit_g\.pth/);
  writeFileSync(join(copy, 'expected.json'), '{"chat": 1}');
  writeFileSync(join(copy, 'eva_vit_g.pth'), '');
  const damaged = await minigpt4(['verify', copy, '--json']);
  assert.is((JSON.parse(damaged.stdout) as { error: { code: string } }).error.code, 'ERR_FILE_FORMAT');
});

suiteOf.run();
