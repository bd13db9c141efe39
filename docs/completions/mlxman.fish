# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_mlxman_global_optspecs
    string join \n store= json q/quiet store-timeout= config= h/help V/version
end

function __fish_mlxman_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_mlxman_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_mlxman_using_subcommand
    set -l cmd (__fish_mlxman_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c mlxman -n "__fish_mlxman_needs_command" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_needs_command" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_needs_command" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_needs_command" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_needs_command" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlxman -n "__fish_mlxman_needs_command" -s V -l version -d 'Print version'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "sync" -d 'Bring the registry up to date with the stores: one manifest for each model'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "list" -d 'List the models of the registry'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "ls" -d 'List the models of the registry'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "verify" -d 'Check that models are whole, load and generate, and how fast they are'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "show" -d 'Show everything known of one model, with what says so'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "path" -d 'Print the directory to load a model from, offline'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "run" -d 'Run a command with a model, offline: HF_HUB_OFFLINE=1, and the model\'s directory in MLXMAN_MODEL_PATH'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "stores" -d 'Show the stores, with used and free space'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "doctor" -d 'Show what is wrong in the stores, what it costs and what mends it; and what this machine verifies models with'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "tag" -d 'Add tags to a model, or take them away'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "note" -d 'Write a note on a model'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "pin" -d 'Pin models: a pinned model is never a candidate for removal'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "unpin" -d 'Take a pin away'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "clean" -d 'See what could be removed and what the disk would get back, and remove it'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "undo" -d 'Put back what was removed last, or by this name, as long as the trash was not emptied'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "trash" -d 'See what was removed and can be put back, and free it for good'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "schema" -d 'Print a JSON Schema of what mlxman reads and writes'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "completions" -d 'Print a shell\'s completions'
complete -c mlxman -n "__fish_mlxman_needs_command" -f -a "man" -d 'Print the manual page, or write all pages into a directory'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l override -d 'Set a field of the named models\' manifests in place of what is observed (repeatable)' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l notes -d 'Write this note into the named models\' manifests' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l fast -d 'Open no weight beyond its header: no hashes are computed, known ones are kept'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l dry-run -d 'Show what would be written, and write nothing'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l accept-replaced -d 'Take a store for what it is now although its directory is another one and holds nothing of what was known'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand sync" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l sort -d 'In which order' -r -f -a "name\t'By name'
size\t'Largest first'
used\t'Longest unused first'"
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l verified -d 'Show what verifications found'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l sort -d 'In which order' -r -f -a "name\t'By name'
size\t'Largest first'
used\t'Longest unused first'"
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l verified -d 'Show what verifications found'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l level -d 'How far to go; as far as the model and the machine allow by default' -r -f -a "structure\t'The files are there, and agree with each other and with their headers'
integrity\t'The contents are those that hashes name: all are read, and nothing is loaded'
load\t'Every tensor was read through MLX and is finite'
generate\t'A prompt was read and tokens were generated'"
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l budget -d 'With `--level integrity`: read for so long, what was checked longest ago first; seconds, or 90s, 10m, 2h' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s p -l prompt-tokens -d 'Tokens of the prompt, at most 1048576' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s g -l generated-tokens -d 'Tokens to generate, at most 1048576' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s n -l trials -d 'Trials, of which the median counts' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l dtype -d 'In what type to compute' -r -f -a "auto\t'The checkpoint\'s on Metal and CUDA, float32 on the CPU'
checkpoint\t'The checkpoint\'s own'
float32\t'IEEE single precision'
bfloat16\t'The upper half of a float32'
float16\t'IEEE half precision'"
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l answers -d 'Compare with recorded answers, else with reference.json in the model\'s directory; or with this file' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l timeout -d 'Give one model up after so long: seconds, or 90s, 10m, 2h' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l memory-limit -d 'Memory that models may take, such as 12GB; the machine\'s available memory by default' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s j -l jobs -d 'Models at once, where memory allows, one by default; with `--level integrity` files at once, by default as many as the machine has cores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l again -d 'With `--level integrity`: read again what was found whole and has not changed since'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l strict -d 'Take a model whose architecture no decoder is known for, or an adapter of an unknown kind, as failed'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l list-families -d 'Print the architectures that a decoder is known for, by their `model_type`, and do nothing else'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l quick -d 'Measure in a few seconds a model (this is the default)'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l bench -d 'Measure as mlx_lm.benchmark does: 512 prompt tokens, 128 generated ones, 5 trials'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l record-answers -d 'Keep what each model answers to a fixed prompt, to compare with later'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand show" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand path" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand run" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand stores" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l fix -d 'Mend what can be mended without a network, after showing it; `mlxman undo` takes it back'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -s y -l yes -d 'Do not ask'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l dry-run -d 'Show what would be mended, and touch nothing'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -l remove -d 'Tags to take away' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand tag" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand note" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand pin" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand unpin" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -f -a "preview" -d 'Show what matches, or without filters what is safe to go; nothing is touched'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -f -a "apply" -d 'Do what a preview showed: move it into the store\'s trash, from where `mlxman undo` puts it back'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -f -a "dedupe" -d 'Find equal files across models and stores, and what one copy of them would save; with --apply, make one copy'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and not __fish_seen_subcommand_from preview apply dedupe hf" -f -a "hf" -d 'See all that a hub cache holds, with what `hf cache ls` leaves out; or remove repos by their ids'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l keep-last -d 'Of each repo keep the N most recent whole snapshots, those that a ref names first; the others may go' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l older-than -d 'Models that were not used for so long, such as 90d: by the log of uses, else by file times' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l max-size -d 'The least recently used, until the stores take no more than this, such as 200GB' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l free -d 'What is missed least, until so much is free on the disk, such as 50GB' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l grace -d 'Leave a revision that no ref names alone for so long after it was last written or used (14d if nothing is said)' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l explain -d 'Say of one model what each policy and each guard makes of it' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l out -d 'Also write the plan to this file' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l detached -d 'Snapshots that no ref names, where another of the repo is named by one'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l partials -d 'Partial downloads that nobody writes'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l orphans -d 'Blobs that no snapshot uses'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l broken -d 'Repos without a snapshot, snapshots without a file or with links whose blobs are gone, stale locks'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l duplicates -d 'Models that lie in the stores once more; the copy in the better place stays'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l superseded -d 'Models of which a newer revision or a finer precision is here and passed `verify --level load`'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l no-policies -d 'Leave out the policies of the configuration'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l include-irreplaceable -d 'Also what cannot be had again: a fused LoRA, a conversion made here, what no repo is known for'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from preview" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l models -d 'Models by name, repo id or glob, with @REVISION or without' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l tags -d 'Models with any of these tags' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l quantization -d 'Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l filter -d 'Only models of which this holds, such as \'size>1.5GB\', \'used>30d\', \'health!=complete\', \'arch~qwen*\'' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l keep-last -d 'Of each repo keep the N most recent whole snapshots, those that a ref names first; the others may go' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l older-than -d 'Models that were not used for so long, such as 90d: by the log of uses, else by file times' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l max-size -d 'The least recently used, until the stores take no more than this, such as 200GB' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l free -d 'What is missed least, until so much is free on the disk, such as 50GB' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l grace -d 'Leave a revision that no ref names alone for so long after it was last written or used (14d if nothing is said)' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l fused-only -d 'Only models with an adapter fused in'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l missing-only -d 'Only models whose files are gone'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l detached -d 'Snapshots that no ref names, where another of the repo is named by one'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l partials -d 'Partial downloads that nobody writes'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l orphans -d 'Blobs that no snapshot uses'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l broken -d 'Repos without a snapshot, snapshots without a file or with links whose blobs are gone, stale locks'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l duplicates -d 'Models that lie in the stores once more; the copy in the better place stays'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l superseded -d 'Models of which a newer revision or a finer precision is here and passed `verify --level load`'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l no-policies -d 'Leave out the policies of the configuration'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l include-irreplaceable -d 'Also what cannot be had again: a fused LoRA, a conversion made here, what no repo is known for'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -s y -l yes -d 'Do not ask'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l now -d 'Free the space at once: what goes cannot be put back'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from apply" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l min-size -d 'Leave files of fewer bytes alone, such as 64MB; 1 MiB by default' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l apply -d 'Make one copy of equal files: they share their blocks, and each stays a file of its own; without this they are only shown'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -s y -l yes -d 'Do not ask'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l hardlink -d 'Make them one file with several names, where the filesystem does not let files share blocks: to edit one is then to edit all of them, and they have the times of the one that stays'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l now -d 'Free the space at once; `mlxman undo` then has to copy'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from dedupe" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l pattern -d 'Show what would go of repos with this id, or of all that a glob matches; `--yes` does it' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l hf-home -d 'Look in this directory\'s `hub` instead of the known hub caches' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l out -d 'Also write the plan to this file, for `mlxman clean apply`' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l scan -d 'Show repos, revisions, sizes and refs, and broken repos, leftovers, locks and Xet\'s cache as well'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l dry-run -d 'Show what would go, and touch nothing, whatever else is said'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -s y -l yes -d 'Move what matches into the trash, without asking'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l now -d 'With --yes: free the space at once; what goes cannot be put back'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand clean; and __fish_seen_subcommand_from hf" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand undo" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -f -a "list" -d 'List what can be put back, and what the disk gets back when it is freed'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and not __fish_seen_subcommand_from list empty" -f -a "empty" -d 'Free it for good'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -l older-than -d 'Only what was removed longer ago than this, such as 7d' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -s y -l yes -d 'Do not ask'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand trash; and __fish_seen_subcommand_from empty" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -l list -d 'Print the names'
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand schema" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand completions" -s h -l help -d 'Print help'
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -l store -d 'Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -l store-timeout -d 'Give up a store that does not answer for so long' -r
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -l config -d 'Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml' -r -F
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -l json -d 'Print JSON instead of a table'
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -s q -l quiet -d 'Print no status, only data, errors, and what was refused'
complete -c mlxman -n "__fish_mlxman_using_subcommand man" -s h -l help -d 'Print help'
