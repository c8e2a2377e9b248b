# results/tables/magicmind.md, .html, .csv, _ap.csv: throughput by card, mode and batch; accuracy by mode


from facekiln.chips.magicmind import table_inputs
from facekiln.evaluation.published import published_files

MAGICMIND_TABLE = table_inputs.MagicmindTableTargets(KILN)


rule make_magicmind_table:
    input:
        unpack(checked(MAGICMIND_TABLE.inputs)),
        # Shown beside ours: a corrected figure makes the tables again.
        published=published_files(),
    output:
        csv="results/tables/magicmind.csv",
        ap="results/tables/magicmind_ap.csv",
        md="results/tables/magicmind.md",
        html=report(
            "results/tables/magicmind.html",
            caption="../report/magicmind.rst",
            category="Accuracy",
            labels={"what": "table", "of": "MagicMind"},
        ),
    log:
        "logs/tables/magicmind.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.chips.magicmind.table_text"),
        settings=MAGICMIND_TABLE.digest(),
        options=lambda wildcards, input: table_inputs.options_of(input),
    shell:
        "facekiln --log {log} magicmind table {params.options:q} --output results/tables/magicmind"
