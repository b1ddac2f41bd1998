// Errors have one class and one voice: a code, what was expected and what was found, and the word that was probably meant.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MiniGptError, abortedError, toMiniGptError } from '../lib/errors.js';
import { checkLoad } from '../lib/load-options.js';
import { editDistance, nearest } from '../lib/nearest.js';
import { chatRules, checkOptions, describeRules, generateRules, loadRules, type LoadOptions } from '../lib/options.js';

const errors = suite('errors');

errors('native, system and foreign errors become MiniGptErrors', () => {
  const coded = (error: Error, properties: object) => Object.assign(error, properties);
  const cases: [unknown, string][] = [
    [coded(new Error('native'), { code: 'ERR_SHAPE' }), 'ERR_SHAPE'],
    [coded(new Error('no such file'), { code: 'ENOENT', syscall: 'open' }), 'ERR_FILE_NOT_FOUND'],
    [coded(new Error('not allowed'), { code: 'EACCES', syscall: 'open' }), 'ERR_FILE_READ'],
    [coded(new Error('unknown code'), { code: 'ERR_SOMETHING' }), 'ERR_INTERNAL'],
    [new TypeError('A number was expected'), 'ERR_ARGUMENT'],
    [new Error('surprise'), 'ERR_INTERNAL'],
    ['a text', 'ERR_INTERNAL'],
    [undefined, 'ERR_INTERNAL'],
  ];
  for (const [thrown, code] of cases) {
    const error = toMiniGptError(thrown);
    assert.instance(error, MiniGptError);
    assert.instance(error, Error);
    assert.is(error.code, code);
    assert.ok(error.message.length > 0);
    if (thrown instanceof Error) assert.is(error.cause, thrown);
  }
  const own = new MiniGptError('ERR_CLOSED', 'closed');
  assert.is(toMiniGptError(own), own);
  assert.is(own.name, 'MiniGptError');
  assert.is(abortedError(AbortSignal.abort('because')).cause, 'because');
});

errors('the codes are the native ones', () => {
  const header = readFileSync(new URL('../native/core/error.h', import.meta.url), 'utf8');
  const native = [...header.matchAll(/= "(ERR_\w+)"/g)].map((match) => match[1]!).sort();
  const known = native.filter((code) => toMiniGptError(Object.assign(new Error('x'), { code })).code === code);
  assert.ok(native.length > 10, `found ${native.length} codes in the header`);
  assert.equal(known, native);
});

errors('edit distances', () => {
  assert.is(editDistance('', ''), 0);
  assert.is(editDistance('abc', ''), 3);
  assert.is(editDistance('kitten', 'sitting'), 3);
  assert.is(editDistance('topk', 'tpok'), 1);
  assert.is(editDistance('flaw', 'lawn'), 2);
});

errors('the nearest known word, or none', () => {
  const known = ['temperature', 'topP', 'topK', 'seed', 'maxTokens'];
  assert.is(nearest('temprature', known), 'temperature');
  assert.is(nearest('top_p', known), 'topP');
  assert.is(nearest('max-token', known), 'maxTokens');
  assert.is(nearest('temp', known), 'temperature');
  assert.is(nearest('xyzzy', known), undefined);
  assert.is(nearest('', known), undefined);
});

function failure(act: () => unknown): MiniGptError {
  try {
    act();
  } catch (error) {
    assert.instance(error, MiniGptError);
    assert.is((error as MiniGptError).code, 'ERR_ARGUMENT');
    return error as MiniGptError;
  }
  throw new Error('expected an error, found none');
}

errors('a wrong option is named with what was expected and found', () => {
  const cases: [object, RegExp][] = [
    [{ topP: 3 }, /^describe\(\): option topP: expected a number above 0 and at most 1, found 3$/],
    [{ topP: 0 }, /topP: .* found 0$/],
    [{ temperature: -1 }, /temperature: expected a number from 0 .* found -1$/],
    [{ temperature: NaN }, /found NaN$/],
    [{ temperature: Infinity }, /found Infinity$/],
    [{ temperature: '1' }, /found "1"$/],
    [{ topK: 1.5 }, /topK: expected a whole number .* found 1.5$/],
    [{ maxTokens: 0 }, /maxTokens: expected a whole number from 1 to 16777216, found 0$/],
    [{ maxTokens: 2 ** 40 }, /maxTokens/],
    [{ lookup: 17 }, /lookup: expected a whole number from 0 \(off\) to 16, found 17$/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty: expected a number above 0, found 0$/],
    [{ minP: 1.1 }, /minP/],
    [{ seed: -1 }, /seed: expected a whole number from 0 to 18446744073709551615, found -1$/],
    [{ seed: -1n }, /found -1n$/],
    [{ topK: 2n }, /topK: .* found 2n$/],
    [{ seed: 2n ** 64n }, /to 18446744073709551615, found 18446744073709551616n$/],
    [{ seed: 2 ** 64 }, /seed/],
    [{ seed: 0.5 }, /seed/],
    [{ prompt: '  ' }, /prompt: expected a text that is not empty, found " {2}"$/],
    [{ prompt: null }, /found null$/],
    [{ stop: ['a', ''] }, /stop: expected .* found an array of 2 \("a", ""\)$/],
    [{ signal: {} }, /signal: expected an AbortSignal, found an object of Object$/],
    [{ template: 7 }, /template/],
    [{ temprature: 1 }, /^describe\(\): unknown option temprature; did you mean temperature\?$/],
    [{ max_tokens: 1 }, /unknown option max_tokens; did you mean maxTokens\?$/],
    [{ xyzzy: 1 }, /unknown option xyzzy; expected one of temperature, topP, /],
  ];
  for (const [options, words] of cases)
    assert.match(failure(() => checkOptions(describeRules, options, 'describe()')).message, words);
  assert.match(
    failure(() => checkOptions(describeRules, 'fast' as never, 'describe()')).message,
    /expected an object of options, found "fast"/,
  );
  assert.match(failure(() => checkOptions(describeRules, null as never, 'describe()')).message, /found null/);
  assert.match(
    failure(() => checkOptions(loadRules, { kvType: 'q8' }, 'MiniGPT4.load()')).message,
    /kvType: expected 'f16', 'f32' or 'q8_0', found "q8"/,
  );
  assert.match(
    failure(() => checkOptions(loadRules, { threads: 0 }, 'MiniGPT4.load()')).message,
    /threads: expected a whole number from 1 to 1024, found 0/,
  );
  for (const device of ['cpuu', 'gpu', 'cuda:', 'cuda:x', 'CPU', '']) {
    assert.match(
      failure(() => checkOptions(loadRules, { device }, 'x')).message,
      new RegExp(`device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', found "${device}"`),
    );
  }
  assert.match(failure(() => checkOptions(loadRules, { device: 'cpuu' }, 'x')).message, /\(did you mean cpu\?\)$/);
  assert.match(failure(() => checkOptions(loadRules, { device: 'coda' }, 'x')).message, /\(did you mean cuda\?\)$/);
  for (const [device, meant] of [
    ['gpu', 'cuda'],
    ['GPU', 'cuda'],
    ['nvidia', 'cuda'],
    ['gpu:0', 'cuda:0'],
  ] as const) {
    const { message } = failure(() => checkOptions(loadRules, { device }, 'x'));
    assert.ok(message.endsWith(`found "${device}" (did you mean ${meant}?)`), message);
  }
  assert.match(
    failure(() => checkOptions(loadRules, { gpuMemory: 2 ** 53 }, 'x')).message,
    /gpuMemory: expected a whole number of bytes from 1 to 9007199254740991, found 9007199254740992$/,
  );
  assert.match(
    failure(() => checkOptions(loadRules, { cpuLevel: 'avx' }, 'x')).message,
    /cpuLevel: expected one of scalar, avx2, avx-vnni, avx512, amx, neon, neon-i8mm, found "avx" \(did you mean avx2\?\)$/,
  );
  for (const device of ['auto', 'cpu', 'cuda', 'cuda:1'])
    assert.equal(checkOptions(loadRules, { device, cpuLevel: 'scalar' }, 'x'), { device, cpuLevel: 'scalar' });
  assert.match(
    failure(() => checkOptions(loadRules, { modle: 'x' }, 'MiniGPT4.load()')).message,
    /did you mean model\?/,
  );
  assert.match(
    failure(() => checkOptions(chatRules, { signal: AbortSignal.abort() }, 'chat()')).message,
    /unknown option signal/,
  );
});

errors('a wish for a GPU needs one', () => {
  const wishes: [LoadOptions, RegExp][] = [
    [{ gpuLayers: 100 }, /^load\(\): gpuLayers is 100, but device is 'cpu'.*: expected 0, or a GPU as device$/],
    [{ visionDevice: 'gpu' }, /visionDevice is 'gpu', but device is 'cpu'.*: expected 'cpu', or a GPU as device$/],
    [{ gpuMemory: 1e9 }, /gpuMemory is 1000000000, but device is 'cpu'.*: expected none, or a GPU as device$/],
  ];
  for (const [wish, words] of wishes) {
    assert.match(failure(() => checkLoad({ ...wish, device: 'cpu' }, 'load()')).message, words);
    // the default counts as what it is
    const { message } = failure(() => checkLoad(wish, 'load()'));
    assert.match(message, words);
    assert.match(message, /device is 'cpu' where it is left out/);
    for (const device of ['auto', 'cuda', 'cuda:1', 'simt'] as const)
      assert.equal(checkLoad({ ...wish, device }, 'load()'), { ...wish, device });
  }
  assert.equal(checkLoad({ gpuLayers: 0, visionDevice: 'cpu', imageBatch: 4 }, 'load()'), {
    gpuLayers: 0,
    visionDevice: 'cpu',
    imageBatch: 4,
  });
});

errors('right options pass unchanged, undefined ones are left out', () => {
  const signal = new AbortController().signal;
  const options = {
    temperature: 0,
    topP: 1,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1.05,
    seed: 2n ** 64n - 1n,
    maxTokens: 1,
    lookup: 16,
    stop: 'x',
    signal,
  };
  assert.equal(checkOptions(generateRules, options, 'ask()'), options);
  assert.equal(checkOptions(generateRules, { temperature: undefined, seed: 0 }, 'ask()'), { seed: 0 });
  assert.equal(checkOptions(generateRules, undefined, 'ask()'), {});
  assert.equal(
    Object.keys(checkOptions(loadRules, { model: new URL('file:///a'), onProgress: () => {}, threads: 2 }, 'x')),
    ['model', 'onProgress', 'threads'],
  );
});

errors.run();
