# results/tables/sophon.csv, .md and .html: the files of one model on every chip, with what each costs and keeps


from facekiln.chips.sophon.table_inputs import SophonTableTargets
from facekiln.evaluation.published import published_files

SOPHON_TABLE = SophonTableTargets(KILN)


rule make_sophon_table:
    input:
        unpack(checked(SOPHON_TABLE.inputs)),
        # Shown beside ours: a corrected figure makes the table again.
        published=published_files(),
    output:
        csv="results/tables/sophon.csv",
        md="results/tables/sophon.md",
        html=report(
            "results/tables/sophon.html",
            caption="../report/sophon.rst",
            category="Accuracy",
            labels={"what": "table", "of": "SOPHON chips"},
        ),
    log:
        "logs/tables/sophon.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.chips.sophon.demo_table_text"),
        settings=SOPHON_TABLE.digest(),
    shell:
        "facekiln --log {log} sophon table {input.bmodels} --output results/tables/sophon"
