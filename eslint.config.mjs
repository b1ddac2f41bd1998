import js from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const node = ['process', 'console', 'performance', 'setTimeout', 'clearTimeout', 'URL', 'Buffer', 'AbortController'];

export default defineConfig(
  globalIgnores(['dist/', 'build/', 'out/', 'prebuilds/', 'gpu/kit/', 'test/fixtures/']),
  js.configs.recommended,
  {
    files: ['**/*.mjs'],
    languageOptions: { globals: Object.fromEntries(node.map((name) => [name, 'readonly'])) },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { project: './tsconfig.test.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      // strict indexing makes `!` the way to say that an index was checked
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unused-vars': [
        'error',
        { varsIgnorePattern: '^_', argsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      '@typescript-eslint/no-redundant-type-constituents': 'off', // `unknown` beside named types documents them
      '@typescript-eslint/unbound-method': 'off', // interfaces are written with methods; `this` is not used in them
      'no-control-regex': 'off', // files and terminals have control characters
      eqeqeq: 'error',
    },
  },
);
