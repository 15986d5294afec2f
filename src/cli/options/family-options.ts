import { type Command, Option } from 'commander';
import { z } from 'zod';
import type { AnyFamily, Families } from '../../pipelines/family.js';

/** An option of a family and the variable that it sets. */
interface VariableOption {
  readonly family: AnyFamily;
  readonly variable: string;
  readonly option: Option;
  /** Value that a switch sets; undefined for options with a value. */
  readonly value: 'true' | 'false' | undefined;
}

/**
 * Adds the options of every family to a command. @param withCheckpoints adds the options that name checkpoints, too
 */
export function addFamilyOptions(command: Command, families: Families, withCheckpoints: boolean): void {
  for (const family of families) {
    const [path] = Object.keys(family.options);
    for (const { variable, option } of optionsOf(family)) {
      if (withCheckpoints || variable !== path) command.addOption(option);
    }
  }
}

/** Values of the given family options, by variable. @param parsed options as commander parsed them */
export function familyVariables(
  parsed: Readonly<Record<string, unknown>>,
  families: readonly AnyFamily[],
): Readonly<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const { variable, option, value } of families.flatMap(optionsOf)) {
    const given = parsed[option.attributeName()];
    if (given === undefined || (value !== undefined && String(given) !== value)) continue;
    variables[variable] = String(given);
  }
  return variables;
}

function optionsOf(family: AnyFamily): readonly VariableOption[] {
  return Object.entries(family.options).flatMap(([variable, { flags, description, negative }]) => {
    const schema = family.variables[variable];
    const title = description === undefined ? (schema?.description ?? '') : `${family.title}: ${description}`;
    const option = new Option(flags, `${title} (${variable})`);
    const choices = choicesOf(schema);
    const isSwitch = !/[<[]/.test(flags);
    if (choices !== undefined && !isSwitch) option.choices(choices);
    const value = isSwitch ? 'true' : undefined;
    const positive: VariableOption = { family, variable, option, value };
    if (negative === undefined) return [positive];
    return [
      positive,
      {
        family,
        variable,
        option: new Option(negative.flags, `${family.title}: ${negative.description}`),
        value: 'false',
      },
    ];
  });
}

function choicesOf(schema: z.ZodType | undefined): readonly string[] | undefined {
  const inner = schema instanceof z.ZodOptional || schema instanceof z.ZodDefault ? schema.unwrap() : schema;
  return inner instanceof z.ZodEnum ? inner.options.map(String) : undefined;
}
