import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readClipTokenizer } from '../../../src/tokenizer/clip.js';
import { readUmt5Tokenizer, umt5TokenizerFromModel } from '../../../src/tokenizer/umt5.js';
import { type FuzzedParser, fileOf, hold, root } from './parser.js';

const TEXT = 'a Red circle, at  dawn! 12 é';

export const parsers: readonly FuzzedParser[] = [
  {
    name: 'tokenizer-umt5',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          added_tokens: [{ id: 1, content: '</s>', special: true, normalized: false }],
          normalizer: {
            type: 'Sequence',
            normalizers: [{ type: 'NFKC' }, { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }],
          },
          pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
          post_processor: {
            type: 'TemplateProcessing',
            single: [{ Sequence: { id: 'A' } }, { SpecialToken: { id: '</s>' } }],
            special_tokens: { '</s>': { ids: [1] } },
          },
          model: {
            type: 'Unigram',
            unk_id: 2,
            vocab: ['<pad>', '</s>', '<unk>', '▁', 'a', '▁red', 'circle', 'c'].map((piece, i) => [piece, -i]),
          },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const tokenizer = await readUmt5Tokenizer(await fileOf(bytes, folder, 'tokenizer.json'));
      const { ids } = tokenizer.encode(TEXT);
      hold(ids.length <= tokenizer.maxLength + 64, 'a tokenizer that does not cut');
    },
  },
  {
    name: 'tokenizer-clip',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          added_tokens: [
            { id: 4, content: '<|startoftext|>', normalized: false },
            { id: 5, content: '<|endoftext|>', normalized: false },
          ],
          normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Lowercase' }] },
          pre_tokenizer: {
            type: 'Sequence',
            pretokenizers: [
              { type: 'Split', pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" } },
              { type: 'ByteLevel', add_prefix_space: false },
            ],
          },
          post_processor: { type: 'RobertaProcessing', sep: ['<|endoftext|>', 5], cls: ['<|startoftext|>', 4] },
          model: {
            type: 'BPE',
            unk_token: '<|endoftext|>',
            end_of_word_suffix: '</w>',
            vocab: { a: 0, 'a</w>': 1, r: 2, 'ra</w>': 3 },
            merges: ['r a</w>'],
          },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const own = join(folder, 'clip');
      await rm(own, { recursive: true, force: true });
      await mkdir(own);
      await fileOf(bytes, own, 'tokenizer.json');
      const tokenizer = await readClipTokenizer(own);
      hold(tokenizer.encode(TEXT).ids.length === tokenizer.maxLength, 'a tokenizer that does not fill its length');
    },
  },
  {
    name: 'sentencepiece',
    seeds: async () => [await readFile(root('assets/tiny-wan/tokenizer/spiece.model'))],
    async parse(bytes) {
      const tokenizer = umt5TokenizerFromModel(bytes);
      for (const id of tokenizer.encode(TEXT).ids) hold(id >= 0, 'a token without an id');
    },
  },
];
